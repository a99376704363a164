"""What happens in the shop: short stories, each told as the events that four connected systems would raise.

The web shop speaks Avvyr, the warehouse ShipStream, the tills Front Systems. One story has one correlation
id, so "related events" joins them again.
"""

from __future__ import annotations

from hookline.demo.catalogue import Json, sample
from hookline.demo.shop import CARRIERS, STORES, Customer, Product, Scene, Shop

Basket = list[tuple[Product, int]]

_VAT = 0.25


def money(amount: float) -> float:
    return round(amount, 2)


def _total(basket: Basket) -> float:
    return money(sum(product.price * quantity for product, quantity in basket))


def _vat(gross: float) -> float:
    return money(gross - gross / (1 + _VAT))


# --- the web shop: carts and orders (Avvyr), their fulfilment in the warehouse (ShipStream) ---------------


def _buyer(customer: Customer) -> Json:
    return {
        "customerId": customer.id,
        "email": customer.email,
        "firstName": customer.first,
        "lastName": customer.last,
        "isGuest": False,
    }


def _address(customer: Customer) -> Json:
    address = sample("orderCreated", "shippingAddress")
    return {**address, "firstName": customer.first, "lastName": customer.last, "street": customer.street}


def _web_line(shop: Shop, product: Product, quantity: int) -> Json:
    return {
        "lineId": shop.hex_id(),
        "productId": product.id,
        "sku": product.sku,
        "name": f"{product.name}, {product.size}",
        "quantity": quantity,
        "unitPrice": product.price,
        "discount": 0.0,
        "taxRate": _VAT,
        "total": money(product.price * quantity),
    }


def _totals(basket: Basket, shipping: float) -> Json:
    goods = _total(basket)
    grand = money(goods + shipping)
    return {"subTotal": goods, "shipping": shipping, "discount": 0.0, "tax": _vat(grand), "grandTotal": grand}


def _stock_adjustments(basket: Basket, sign: int) -> Json:
    return {
        product.sku: {"qty_adjust": sign * quantity, "qty_available": product.stock}
        for product, quantity in basket
    }


def _fill_cart(scene: Scene, customer: Customer, basket: Basket) -> Json:
    """A cart grows line by line; returns its last state."""
    shop = scene.shop
    cart_id = shop.hex_id()
    scene.about("cart", cart_id)
    created = shop.time(scene.at)
    cart: Json = {"id": cart_id, "customer": _buyer(customer), "createdAt": created, "updatedAt": created}
    lines: list[Json] = []
    for number, (product, quantity) in enumerate(basket):
        lines = [*lines, _web_line(shop, product, quantity)]
        totals = _totals(basket[: number + 1], 0.0)
        cart = {**cart, "lines": lines, "totals": totals, "updatedAt": shop.time(scene.at)}
        scene.emit("cartUpdated" if number else "cartCreated", **cart)
        scene.wait(0.5, 6)
    return cart


def _new_order(scene: Scene, customer: Customer, basket: Basket, cart: Json, pickup: bool) -> Json:
    """The paid cart becomes an order, known to the web shop and the warehouse by the same number."""
    shop = scene.shop
    shipping = 0.0 if pickup else 4.9
    totals = _totals(basket, shipping)
    payment = {
        **sample("orderCreated", "payment"),
        "amount": totals["grandTotal"],
        "transactionId": shop.hex_id(),
    }
    scene.emit(
        "cartFullyPaid", **{**cart, "status": "paid", "payment": payment, "updatedAt": shop.time(scene.at)}
    )
    number = str(shop.number("order", 100_000_015))
    order_id = shop.hex_id()
    scene.about("order", order_id, key=number)
    method = "click_and_collect" if pickup else "home_delivery"
    order: Json = {
        "id": order_id,
        "orderNumber": number,
        "customer": _buyer(customer),
        "shippingAddress": _address(customer),
        "billingAddress": _address(customer),
        "lines": cart["lines"],
        "totals": totals,
        "payment": payment,
        "shipping": {"method": method, "carrier": shop.random.choice(CARRIERS), "price": shipping},
        "createdAt": shop.time(scene.at),
        "updatedAt": shop.time(scene.at),
    }
    scene.emit("orderCreated", **order)
    scene.emit("order:created", unique_id=number, stock_adjustments=_stock_adjustments(basket, -1))
    _order_status(scene, number, None, "new")
    return order


def _order_status(scene: Scene, number: str, old: str | None, new: str) -> None:
    scene.emit(
        "order:status_changed",
        unique_id=number, old_status=old, new_status=new, old_state=old, new_state=new,
    )  # fmt: skip


def _fulfillment(scene: Scene, order: Json) -> Json:
    shop = scene.shop
    lines = [
        {"lineId": line["lineId"], "sku": line["sku"], "quantity": line["quantity"], "picked": 0}
        for line in order["lines"]
    ]
    created = shop.time(scene.at)
    return {
        "id": shop.hex_id(),
        "orderId": order["id"],
        "orderNumber": order["orderNumber"],
        "lines": lines,
        "createdAt": created,
        "updatedAt": created,
    }


def _ship(scene: Scene, order: Json, fulfillment: Json) -> None:
    """Pick, pack, hand over: the fulfillment, the tracking number and the order's last states."""
    shop, number = scene.shop, str(order["orderNumber"])
    carrier = str(order["shipping"]["carrier"])
    track = str(shop.random.randint(10**11, 10**12 - 1))
    shipment = {
        "carrier": carrier,
        "trackingNumber": track,
        "trackingUrl": f"https://track.example.com/{track}",
    }
    picked = [{**line, "picked": line["quantity"]} for line in fulfillment["lines"]]
    now = shop.time(scene.at)
    scene.emit(
        "fulfillmentUpdated", **{**fulfillment, "lines": picked, "shipment": shipment, "updatedAt": now}
    )
    scene.emit(
        "track:created",
        unique_id=shop.number("track", 5), shipment_unique_id=shop.number("shipment", 100_000_007),
        order_unique_id=int(number), source="webshop", track_number=track, carrier=carrier,
    )  # fmt: skip
    scene.emit("orderUpdated", **{**order, "status": "shipped", "updatedAt": now})
    scene.wait(60, 240)
    _order_status(scene, number, "processing", "complete")
    scene.emit("order:completed", unique_id=number)
    scene.emit("orderUpdated", **{**order, "status": "delivered", "updatedAt": shop.time(scene.at)})


def _cancel(scene: Scene, order: Json, basket: Basket, fulfillment: Json) -> None:
    shop, number = scene.shop, str(order["orderNumber"])
    for product, quantity in basket:
        product.stock += quantity
    _order_status(scene, number, "processing", "canceled")
    scene.emit("order:canceled", unique_id=number, stock_adjustments=_stock_adjustments(basket, 1))
    gone = shop.time(scene.at)
    scene.emit(
        "fulfillmentDeleted", id=fulfillment["id"], orderId=order["id"], orderNumber=number, deletedAt=gone
    )
    scene.emit("orderDeleted", id=order["id"], orderNumber=number, deletedAt=gone)


def web_order(shop: Shop, at: float, course: str = "delivered") -> None:
    """From the cart to the door. ``course``: delivered, pickup, canceled, held or address."""
    customer, basket = shop.random.choice(shop.customers), shop.buy()
    scene = Scene(shop, at, f"web-{shop.hex_id()[:12]}", "storefront", customer.id)
    cart = _fill_cart(scene, customer, basket)
    order = _new_order(scene, customer, basket, cart, pickup=course == "pickup")
    number = str(order["orderNumber"])
    scene.wait(1, 8)
    if course == "held":
        scene.emit("order:holded", unique_id=number)
        scene.wait(20, 60)
    if course == "address":
        scene.emit("order:address_validation_failed", unique_id=number)
        scene.wait(10, 40)
    _order_status(scene, number, "new", "processing")
    fulfillment = _fulfillment(scene, order)
    scene.emit("fulfillmentCreated", **fulfillment)
    scene.wait(10, 90)
    if course == "canceled":
        _cancel(scene, order, basket, fulfillment)
        return
    if course == "pickup":
        now = shop.time(scene.at)
        ready = {**sample("orderReadyForPickup", "pickup"), "readyAt": now}
        scene.emit("orderReadyForPickup", **{**order, "pickup": ready, "updatedAt": now})
    _ship(scene, order, fulfillment)
    _book_sale(scene, order, customer, basket)


def _book_sale(scene: Scene, order: Json, customer: Customer, basket: Basket) -> None:
    """The web order as the tills' system books it."""
    number, grand = str(order["orderNumber"]), float(order["totals"]["grandTotal"])
    scene.emit(
        "SaleExternalCreated",
        **_sale_fields(scene, customer, basket, grand),
        receiptNo=f"W-{number}", externalOrderNo=number,
    )  # fmt: skip


def abandoned_cart(shop: Shop, at: float) -> None:
    """Someone looks, and leaves."""
    customer = shop.random.choice(shop.customers)
    scene = Scene(shop, at, f"web-{shop.hex_id()[:12]}", "storefront", customer.id)
    basket = shop.buy()
    cart = _fill_cart(scene, customer, basket)
    for product, quantity in basket:
        product.stock += quantity
    scene.wait(60, 180)
    scene.emit("cartDeleted", id=cart["id"], deletedAt=shop.time(scene.at))


# --- the stores: tills, customers, endless aisle (Front Systems) --------------------------------------------


def _till_line(row: int, product: Product, quantity: int) -> Json:
    gross = money(product.price * quantity)
    return {
        "rowId": row,
        "gtin": product.gtin,
        "externalSKU": product.sku,
        "productName": product.name,
        "sizeText": product.size,
        "quantity": quantity,
        "price": product.price,
        "fullPrice": product.price,
        "discount": 0.0,
        "discountPercent": 0.0,
        "vat": _vat(gross),
        "vatPercent": 25.0,
    }


def _sale_fields(scene: Scene, customer: Customer, basket: Basket, total: float) -> Json:
    payment = {**sample("SaleCreated", "paymentLines", 0), "amount": total}
    return {
        "saleId": scene.shop.number("sale", 910_045),
        "saleGuid": _guid(scene.shop),
        "customerId": customer.number,
        "saleLines": [_till_line(row, *entry) for row, entry in enumerate(basket, start=1)],
        "paymentLines": [payment],
        "total": total,
        "vatTotal": _vat(total),
        "createdDateTime": scene.shop.local_time(scene.at),
    }


def _guid(shop: Shop) -> str:
    digits = f"{shop.random.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _person(shop: Shop, customer: Customer, at: float) -> Json:
    return {
        "customerId": customer.number,
        "customerExtId": f"C-{customer.number}",
        "customerGuid": _guid(shop),
        "email": customer.email,
        "firstName": customer.first,
        "lastName": customer.last,
        "address1": customer.street,
        "cardNo": f"900{customer.number}",
        "createdDateTime": shop.local_time(at),
        "updatedDateTime": shop.local_time(at),
    }


def stock_movement(scene: Scene, product: Product, quantity: int, kind: str) -> None:
    """One movement of one article; afterwards the scene is about what it was about before."""
    shop, (object_type, object_id), key = scene.shop, scene.object, scene.key
    scene.about("product", product.sku)
    scene.emit(
        "StockMovementCreated",
        movementId=shop.number("movement", 7_700_451), type=kind, sku=product.sku, gtin=product.gtin,
        quantity=quantity, stockLevel=product.stock + 2, availableLevel=product.stock,
        productName=product.name, createdDateTime=shop.local_time(scene.at),
    )  # fmt: skip
    scene.about(object_type, object_id, key)


def store_sale(shop: Shop, at: float, extra: str = "") -> None:
    """A sale at a till. ``extra``: "member" signs up a new customer, "invoice" pays by invoice."""
    number, name = shop.random.choice(STORES)
    customer = shop.new_customer() if extra == "member" else shop.random.choice(shop.customers)
    scene = Scene(shop, at, f"till-{shop.hex_id()[:12]}", "pos", f"person-{shop.random.randint(30, 39)}")
    basket = shop.buy()
    if extra == "member":
        scene.about("customer", str(customer.number))
        scene.emit("CustomerCreated", **_person(shop, customer, scene.at))
        shop.customers.append(customer)
    fields = _sale_fields(scene, customer, basket, _total(basket))
    receipt = f"{number}-{shop.number('receipt', 31_077)}"
    scene.about("sale", str(fields["saleId"]))
    scene.emit("SaleCreated", **fields, receiptNo=receipt, storeId=number, storeName=name)
    for product, quantity in basket:
        stock_movement(scene, product, -quantity, "Sale")
    if extra == "invoice":
        invoice = shop.number("invoice", 8_801)
        kept = {key: fields[key] for key in ("saleId", "customerId", "total", "vatTotal", "createdDateTime")}
        scene.emit(
            "InvoiceCreated",
            **kept, invoiceId=invoice, invoiceNo=f"INV-{invoice}", receiptNo=receipt, storeId=number,
            invoiceLines=fields["saleLines"], invoiceDate=shop.date_after(0), dueDate=shop.date_after(30),
        )  # fmt: skip


def customer_update(shop: Shop, at: float) -> None:
    """A customer changes the newsletter choice at the till."""
    customer = shop.random.choice(shop.customers)
    scene = Scene(shop, at, f"crm-{shop.hex_id()[:12]}", "pos", f"person-{shop.random.randint(30, 39)}")
    scene.about("customer", str(customer.number))
    agreed = shop.random.random() < 0.5
    scene.emit("CustomerUpdated", **_person(shop, customer, scene.at), agreedSendSMS=agreed)


def endless_aisle(shop: Shop, at: float, course: str = "fulfilled") -> None:
    """Ordered at a till, sent from the warehouse; with ``course`` "refund", it comes back."""
    customer, basket = shop.random.choice(shop.customers), shop.buy()
    number = shop.number("aisle", 30_112)
    scene = Scene(shop, at, f"aisle-{shop.hex_id()[:12]}", "pos", f"person-{shop.random.randint(30, 39)}")
    scene.about("omnichannel_order", str(number))
    total = _total(basket)
    person = {"customerId": customer.number, "email": customer.email}
    names = {"firstName": customer.first, "lastName": customer.last}
    order: Json = {
        "orderId": number,
        "orderNo": f"EA-{number}",
        "createdDateTime": shop.local_time(scene.at),
        "dueDateTime": f"{shop.date_after(3)}T18:00:00",
        "customer": {**person, **names},
        "total": total,
        "vatTotal": _vat(total),
    }
    for event_type, status in _AISLE[course]:
        changed = {"status": status, "updatedDateTime": shop.local_time(scene.at)}
        lines = [
            _aisle_line(row, product, quantity, status) for row, (product, quantity) in enumerate(basket, 1)
        ]
        sign = {"total": -total, "vatTotal": -_vat(total)} if status == "Returned" else {}
        scene.emit(event_type, **{**order, **changed, **sign, "orderLines": lines})
        scene.wait(20, 120)


_AISLE_FULFILLED = (
    ("OmniChannelEndlessAisleOrderCreated", "UnHandled"),
    ("OmniChannelOrderUpdated", "Picked"),
    ("OmniChannelOrderFulfilled", "Shipped"),
)
_AISLE = {
    "fulfilled": _AISLE_FULFILLED,
    "refund": (*_AISLE_FULFILLED, ("OmniChannelOrderRefundUpdated", "Returned")),
}


def _aisle_line(row: int, product: Product, quantity: int, status: str) -> Json:
    line = {**_till_line(row, product, quantity), "status": status}
    del line["productName"]
    return line

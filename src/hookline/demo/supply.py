"""The other half of the shop's day: buying, receiving, moving, counting and describing goods."""

from __future__ import annotations

from functools import partial

from hookline.demo.catalogue import Json
from hookline.demo.scenes import (
    abandoned_cart,
    customer_update,
    endless_aisle,
    money,
    stock_movement,
    store_sale,
    web_order,
)
from hookline.demo.shop import STORES, Product, Scenario, Scene, Shop


def inbound(shop: Shop, at: float, course: str = "received") -> None:
    """A purchase order and its delivery. ``course``: received, exception, or canceled."""
    scene = Scene(shop, at / 2, f"po-{shop.hex_id()[:12]}", "erp", "buyer-3")
    goods = [(product, shop.random.randint(20, 160)) for product in shop.random.sample(shop.products, 3)]
    purchase = _purchase(scene, goods)
    scene.emit("purchaseCreated", **purchase)
    scene.wait(5, 30)
    delivery = str(shop.number("delivery", 1_000_029))
    purchase_object, purchase_key = scene.object, scene.key
    scene.about("delivery", delivery)
    scene.emit("delivery:created", unique_id=delivery)
    scene.wait(10, 60)
    if course == "canceled":
        scene.emit("delivery:canceled", unique_id=delivery)
        scene.about(*purchase_object, purchase_key)
        number = purchase["purchaseNumber"]
        scene.emit("purchaseDeleted", id=purchase["id"], purchaseNumber=number, deletedAt=shop.time(scene.at))
        return
    if course == "exception":
        scene.emit("delivery:exception", unique_id=delivery)
        scene.wait(10, 60)
    _receive(scene, delivery, goods, str(purchase["purchaseNumber"]))
    scene.about(*purchase_object, purchase_key)
    scene.emit("purchaseUpdated", **{**purchase, "status": "received", "updatedAt": shop.time(scene.at)})


def _purchase(scene: Scene, goods: list[tuple[Product, int]]) -> Json:
    shop = scene.shop
    purchase_id = shop.hex_id()
    scene.about("purchase", purchase_id)
    lines: list[Json] = [
        {"sku": product.sku, "quantity": quantity, "unitCost": money(product.price * 0.4), "received": 0}
        for product, quantity in goods
    ]
    return {
        "id": purchase_id,
        "purchaseNumber": f"PO-{shop.number('purchase', 7_003)}",
        "lines": lines,
        "total": money(sum(line["unitCost"] * line["quantity"] for line in lines)),
        "expectedAt": shop.date_after(2),
        "createdAt": shop.time(scene.at),
        "updatedAt": shop.time(scene.at),
    }


def _receive(scene: Scene, delivery: str, goods: list[tuple[Product, int]], purchase_number: str) -> None:
    """Through the gate and onto the shelves, as the warehouse and the stores' system see it."""
    shop = scene.shop
    for step in ("accepted", "processed"):
        scene.emit(f"delivery:{step}", unique_id=delivery)
        scene.wait(5, 30)
    items: list[Json] = [
        {
            "gtin": product.gtin,
            "externalSKU": product.sku,
            "quantity": quantity,
            "costPrice": money(product.price * 0.4),
            "receivedQuantity": quantity,
        }
        for product, quantity in goods
    ]
    names: Json = {
        "deliveryId": int(delivery),
        "deliveryNo": f"D-{delivery}",
        "purchaseOrderNo": purchase_number,
    }
    scene.emit("DeliveryItemsReceived", **names, items=items, receivedDateTime=shop.local_time(scene.at))
    scene.emit("delivery:status_changed", unique_id=delivery)
    scene.emit("delivery:putaway", unique_id=delivery)
    adjustments: Json = {}
    for product, quantity in goods:
        product.stock += quantity
        adjustments[product.sku] = {"qty_adjust": quantity, "qty_available": product.stock}
    scene.emit("delivery:committed", unique_id=delivery, stock_adjustments=adjustments)
    cost = money(sum(item["costPrice"] * item["quantity"] for item in items))
    done = shop.local_time(scene.at)
    scene.emit("DeliveryCompleted", **names, items=items, totalCost=cost, completedDateTime=done)


def transfer(shop: Shop, at: float, course: str = "received") -> None:
    """Goods go from the warehouse to a store. ``course``: received, virtual (on paper only), or dropped."""
    scene = Scene(shop, at, f"transfer-{shop.hex_id()[:12]}", "erp", "planner-1")
    number, name = shop.random.choice(STORES)
    product, quantity = shop.random.choice(shop.products), shop.random.randint(2, 24)
    transfer_id, label = shop.hex_id(), f"TR-{shop.number('transfer', 20_045)}"
    scene.about("transfer", transfer_id)
    plan: Json = {
        "id": transfer_id,
        "transferNumber": label,
        "toLocation": {"id": f"store-{number}", "name": name},
        "lines": [{"sku": product.sku, "quantity": quantity, "received": 0}],
        "createdAt": shop.time(scene.at),
        "updatedAt": shop.time(scene.at),
    }
    scene.emit("transferCreated", **plan)
    scene.wait(5, 60)
    if course == "dropped":
        scene.emit("transferDeleted", id=transfer_id, transferNumber=label, deletedAt=shop.time(scene.at))
        return
    kind = "ProductTransferVirtual" if course == "virtual" else "ProductTransfer"
    _carry(scene, kind, number, product, quantity)
    scene.emit("transferUpdated", **{**plan, "status": "received", "updatedAt": shop.time(scene.at)})


def _carry(scene: Scene, kind: str, store: int, product: Product, quantity: int) -> None:
    shop = scene.shop
    number = shop.number("product_transfer", 6_012)
    names: Json = {
        "transferId": number,
        "transferNo": f"T-{number}",
        "createdDateTime": shop.local_time(scene.at),
    }
    line = {"gtin": product.gtin, "externalSKU": product.sku, "quantity": quantity, "receivedQuantity": 0}
    target = 90 if kind.endswith("Virtual") else store
    scene.emit(f"{kind}Created", **names, toStockId=target, lines=[line])
    scene.wait(30, 120)
    arrived = {**line, "receivedQuantity": quantity}
    received = shop.local_time(scene.at)
    scene.emit(f"{kind}Received", **names, toStockId=target, lines=[arrived], receivedDateTime=received)


def product_feed(shop: Shop, at: float) -> None:
    """The morning's import: new descriptions for a part of the range, sent as batches."""
    scene = Scene(shop, at / 4, f"feed-{shop.hex_id()[:12]}", "pim", "importer")
    import_id = shop.number("import", 4)
    scene.about("import", str(import_id))
    scene.emit("import:created", unique_id=import_id)
    scene.bulk = shop.number("bulk", 1)
    for product in shop.random.sample(shop.products, 12):
        scene.about("product", product.sku)
        scene.emit("productUpdated", **_description(scene, product))
        scene.emit("product:updated", sku=product.sku)
    scene.bulk = 0
    scene.wait(2, 10)
    scene.about("import", str(import_id))
    scene.emit("import:completed", unique_id=import_id)


def _description(scene: Scene, product: Product) -> Json:
    return {
        "id": product.id,
        "sku": product.style,
        "name": product.name,
        "slug": product.name.lower().replace(", ", "-").replace(" ", "-"),
        "updatedAt": scene.shop.time(scene.at),
    }


def product_life(shop: Shop, at: float) -> None:
    """A product appears, gets its pictures, and leaves the range again."""
    scene = Scene(shop, at / 2, f"range-{shop.hex_id()[:12]}", "pim", "editor-7")
    product = shop.random.choice(shop.products)
    scene.about("product", product.sku)
    sku = product.sku
    scene.emit("productCreated", **_description(scene, product))
    for event_type in ("product:created", "product_media:created", "product_media:updated"):
        scene.emit(event_type, sku=sku)
        scene.wait(5, 40)
    for event_type in ("product_media:deleted", "product:deleted"):
        scene.emit(event_type, sku=sku)
        scene.wait(5, 40)
    scene.emit("productDeleted", id=product.id, sku=sku, deletedAt=shop.time(scene.at))


def stock_count(shop: Shop, at: float) -> None:
    """A shelf is counted, the differences are booked (as a batch), the warehouse corrects its stock."""
    scene = Scene(shop, at, f"count-{shop.hex_id()[:12]}", "pos", "person-31")
    product, difference = shop.random.choice(shop.products), shop.random.choice((-2, -1, 1))
    line = {"gtin": product.gtin, "externalSKU": product.sku}
    count = shop.number("count", 330)
    now = shop.local_time(scene.at)
    scene.about("stock_count", str(count))
    counted: Json = {"movementId": shop.number("movement", 7_700_451), **line, "expected": product.stock}
    result = {**counted, "counted": product.stock + difference, "difference": difference}
    product.stock += difference
    scene.emit("StockCountReconciled", stockCountId=count, countedDateTime=now, stockMovements=[result])
    level = {**line, "quantity": difference, "stockLevel": product.stock}
    adjustment = shop.number("adjustment", 4_410)
    scene.emit("StockAdjustmentCreated", adjustmentId=adjustment, lines=[level], createdDateTime=now)
    scene.bulk = shop.number("bulk", 1)
    for other in shop.random.sample(shop.products, 5):
        stock_movement(scene, other, 0, "StockCount")
    scene.bulk = 0
    adjusted = {product.sku: {"qty_adjust": difference, "qty_available": product.stock}}
    scene.emit("inventory:adjusted", stock_adjustments=adjusted)


def settlement(shop: Shop, at: float) -> None:
    """A till is closed and its Z report printed."""
    closing = max(at, 17 * 3600)
    number, name = shop.random.choice(STORES)
    scene = Scene(shop, closing, f"z-{shop.hex_id()[:12]}", "pos", "person-31")
    settlement_id = shop.number("settlement", 2_204)
    scene.about("settlement", str(settlement_id))
    gross = money(shop.random.uniform(2_000, 9_000))
    scene.emit(
        "POSSettlementCreated",
        settlementId=settlement_id, batchNumber=shop.number("batch", 512), storeId=number, storeName=name,
        grossTotal=gross, vatTotal=money(gross / 5), netTotal=money(gross - money(gross / 5)),
        toDateTime=shop.local_time(closing), createdDateTime=shop.local_time(closing),
    )  # fmt: skip


SCENARIOS: tuple[tuple[int, Scenario], ...] = (
    (30, web_order),
    (6, partial(web_order, course="pickup")),
    (3, partial(web_order, course="canceled")),
    (2, partial(web_order, course="held")),
    (2, partial(web_order, course="address")),
    (10, abandoned_cart),
    (30, store_sale),
    (5, partial(store_sale, extra="member")),
    (4, partial(store_sale, extra="invoice")),
    (5, customer_update),
    (6, endless_aisle),
    (2, partial(endless_aisle, course="refund")),
    (4, inbound),
    (1, partial(inbound, course="exception")),
    (1, partial(inbound, course="canceled")),
    (4, transfer),
    (2, partial(transfer, course="virtual")),
    (1, partial(transfer, course="dropped")),
    (2, product_feed),
    (2, product_life),
    (2, stock_count),
    (2, settlement),
)
"""What can happen, with how often it does."""

// Prints, as one JSON line for each AsyncAPI file named, what the parser made of it and everything it has to say.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const parser = new Parser();
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(readFileSync(file, 'utf8'));
  const messages = document?.messages().all() ?? [];
  const found = {
    version: document?.version() ?? null,
    messages: messages.map((message) => message.name()),
    headers: messages.map((message) => Object.keys(message.headers()?.properties() ?? {})),
    problems: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path })),
  };
  console.log(JSON.stringify(found));
}

// Opens each file in the YAML language server as an editor does, with the first line that `tokenferry schema --help`
// tells to write, and prints what it marks: {"FILE": ["LINE: message", …], …}.
//   node diagnose.mjs SERVER_FOLDER [SCHEMA FILE]…
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

const [folder, ...rest] = process.argv.slice(2);
const server = spawn(process.execPath, [`${folder}/node_modules/yaml-language-server/bin/yaml-language-server`, '--stdio']);
server.stderr.pipe(process.stderr);
server.on('exit', (code) => fail(`the server ended with ${code}`));
setTimeout(() => fail('no answer within five minutes'), 300_000).unref();

function fail(why) {
  console.error(why);
  process.exit(1);
}

let buffer = Buffer.alloc(0);
let number = 0;
const asked = new Map();
const marked = new Map();

function send(message) {
  const text = JSON.stringify({ jsonrpc: '2.0', ...message });
  server.stdin.write(`Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
}

function ask(method, params) {
  number += 1;
  send({ id: number, method, params });
  return new Promise((resolve) => asked.set(number, resolve));
}

const settings = { yaml: { validate: true, schemaStore: { enable: false } } };

function receive(message) {
  if (message.method === 'workspace/configuration') {
    send({ id: message.id, result: message.params.items.map(({ section }) => settings[section] ?? {}) });
  } else if (message.method === 'textDocument/publishDiagnostics') {
    marked.get(message.params.uri)?.(message.params.diagnostics);
  } else if (message.id !== undefined && message.method) {
    send({ id: message.id, result: null });
  } else if (message.id !== undefined) {
    asked.get(message.id)(message.result);
  }
}

server.stdout.on('data', (data) => {
  buffer = Buffer.concat([buffer, data]);
  for (;;) {
    const end = buffer.indexOf('\r\n\r\n');
    if (end < 0) return;
    const length = Number(/Content-Length: (\d+)/.exec(buffer.subarray(0, end))[1]);
    if (buffer.length < end + 4 + length) return;
    const body = buffer.subarray(end + 4, end + 4 + length);
    buffer = buffer.subarray(end + 4 + length);
    receive(JSON.parse(body));
  }
});

await ask('initialize', {
  processId: process.pid,
  rootUri: null,
  capabilities: { workspace: { configuration: true }, textDocument: { publishDiagnostics: {} } },
  initializationOptions: {},
});
send({ method: 'initialized', params: {} });
send({ method: 'workspace/didChangeConfiguration', params: { settings } });

const found = {};
for (let at = 0; at < rest.length; at += 2) {
  const [schema, file] = rest.slice(at, at + 2);
  const uri = `file://${file}`;
  const diagnostics = new Promise((resolve) => marked.set(uri, resolve));
  const text = `# yaml-language-server: $schema=${schema}\n${readFileSync(file)}`;
  send({ method: 'textDocument/didOpen', params: { textDocument: { uri, languageId: 'yaml', version: 1, text } } });
  found[file] = (await diagnostics).map((one) => `${one.range.start.line}: ${one.message}`);
}
console.log(JSON.stringify(found));
process.exit(0);

// Read a file of Gaussians with Spark's own parser, outside a browser, and print it as JSON: node spark_reader.cjs FILE TYPE
const fs = require('fs');
const path = require('path');
const threads = require('worker_threads');
const {resolveObjectURL} = require('buffer');

globalThis.self = globalThis;
globalThis.window ??= globalThis;
globalThis.document ??= {
  createElementNS: () => ({style: {}, addEventListener() {}}),
  createElement: () => ({style: {}, getContext: () => null}),
};
URL.revokeObjectURL = () => {};

// What a web worker's code expects, on top of a thread of Node.
const PRELUDE = `
const {parentPort} = require('worker_threads');
const listeners = [];
globalThis.self = globalThis;
globalThis.location = {href: 'file:///spark'};
self.postMessage = (data, more) => parentPort.postMessage(data, Array.isArray(more) ? more : more?.transfer ?? []);
self.addEventListener = (kind, call) => { if (kind === 'message') listeners.push(call); };
self.removeEventListener = () => {};
parentPort.on('message', (data) => {
  listeners.forEach((call) => call({data}));
  if (typeof self.onmessage === 'function') self.onmessage({data});
});
`;

globalThis.Worker = class {
  constructor(url) {
    this.listeners = [];
    this.ready = this.start(String(url));
  }

  async start(url) {
    const inline = () => decodeURIComponent(url.slice(url.indexOf(',') + 1));
    const code = url.startsWith('blob:') ? await (await resolveObjectURL(url)).text() : inline();
    const thread = new threads.Worker(PRELUDE + code.replace(/import\.meta\.url/g, "'file:///spark'"), {eval: true});
    thread.on('message', (data) => {
      this.onmessage?.({data});
      this.listeners.forEach((call) => call({data}));
    });
    thread.on('error', (error) => { console.error(error.message); process.exit(1); });
    return thread;
  }

  async postMessage(data, more) {
    (await this.ready).postMessage(data, Array.isArray(more) ? more : more?.transfer ?? []);
  }

  addEventListener(kind, call) { if (kind === 'message') this.listeners.push(call); }
  removeEventListener() {}
  terminate() {}
};

(async () => {
  const folder = path.dirname(require.resolve('@sparkjsdev/spark'));
  const {PackedSplats} = await import(path.join(folder, 'spark.module.js'));
  const [file, fileType] = process.argv.slice(2);
  const splats = new PackedSplats({fileBytes: new Uint8Array(fs.readFileSync(file)), fileType});
  await splats.initialized;
  const rows = [];
  splats.forEachSplat((i, center, scales, quaternion, opacity, color) => {
    const {x, y, z, w} = quaternion;
    rows.push([...center.toArray(), w, x, y, z, ...scales.toArray(), opacity, ...color.toArray()]);
  });
  process.stdout.write(JSON.stringify(rows), () => process.exit(0));
})().catch((error) => { console.error(error); process.exit(1); });

// Frame rate and memory.

const WINDOW_MS = 2000;

export class Readout {
  constructor(element) {
    this.element = element;
    this.times = [];
    this.written = 0;
  }

  count(now) {
    this.times.push(now);
  }

  get rate() {
    return this.times.length * 1000 / WINDOW_MS;
  }

  draw(now, measure) {
    if (now - this.written < 500) return;
    this.written = now;
    this.times = this.times.filter((time) => now - time < WINDOW_MS);
    const memory = measure();
    const splats = memory.hostBytes + memory.gpuBytes + memory.drawingBytes;
    const heap = performance.memory ? `, page ${mib(performance.memory.usedJSHeapSize)}` : "";
    const rate = this.times.length ? `${this.rate.toFixed(this.rate < 10 ? 1 : 0)} fps` : "at rest";
    this.element.textContent = `${rate} · splats ${mib(splats)}${heap}`;
  }
}

function mib(bytes) {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
}

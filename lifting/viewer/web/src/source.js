// Where the scene's files come from: the page itself, or the server that gave the page.

const INLINE = 'script[type="application/octet-stream"]';

export function openSource() {
  const manifest = document.getElementById("manifest");
  return manifest ? new InlineSource(JSON.parse(manifest.textContent)) : new ServedSource();
}

class InlineSource {
  constructor(manifest) {
    this.told = manifest;
  }

  async manifest() {
    return this.told;
  }

  // A file can be taken once: its text leaves the page, so that it is not held beside what is made of it.
  async bytes(name) {
    return window.pano4dUnpack(name);
  }

  left() {
    return document.querySelectorAll(INLINE).length;
  }
}

class ServedSource {
  async manifest() {
    return (await this.fetch("manifest.json")).json();
  }

  async bytes(name) {
    return new Uint8Array(await (await this.fetch(name)).arrayBuffer());
  }

  left() {
    return 0;
  }

  async fetch(name) {
    const response = await fetch(`scene/${encodeURIComponent(name)}`).catch(() => null);
    if (!response || !response.ok) throw new Error(`${name} could not be fetched; is pano4d view still running?`);
    return response;
  }
}

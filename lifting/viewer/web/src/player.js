// The page: what is drawn when, and what its buttons do.

import { Controls } from "./controls.js";
import { offerHeadset } from "./headset.js";
import { RangePlan } from "./range.js";
import { Readout } from "./readout.js";
import { Sphere } from "./sphere.js";
import { Stage } from "./stage.js";
import { MODES, Timeline } from "./timeline.js";
import { View } from "./view.js";

const SAFE_SHARE = 0.25; // of the distance of what is near
// A weak GPU lets nothing else happen while it draws the first picture, so the files come first if they take no longer.
const PATIENCE_MS = 2000;
const TABS = ["scene", "both", "video"];
const byId = (id) => document.getElementById(id);

export class Player {
  constructor(source, manifest, tell) {
    Object.assign(this, { source, manifest, tell });
    this.frames = Math.max(manifest.frames, 1);
    this.timeline = new Timeline(this.frames, manifest.fps || 7);
    this.view = new View(SAFE_SHARE * (manifest.near_m || 1));
    this.stage = new Stage(byId("splats"), { fixed: manifest.static && manifest.static.gaussians !== 0, moving: manifest.moving.length > 0 });
    this.sphere = null;
    this.readout = new Readout(byId("readout"));
    this.plan = new RangePlan(byId("plan"), byId("range"), this.view);
    this.loaded = 0;
    this.times = {};
    this.waiting = [];
    this.last = performance.now();
    this.connect();
    this.choose("scene");
    new ResizeObserver(() => this.resize()).observe(byId("pictures"));
    this.stage.renderer.setAnimationLoop((now) => this.tick(now));
  }

  // Decode all files at once, in the order in which they are needed.
  async load() {
    const { stage, manifest, source } = this;
    const files = manifest.moving.map(({ file }) => file);
    stage.show(0);
    const names = [...(this.stage.has.fixed ? [manifest.static.file] : []), ...files];
    const all = [];
    for (const [i, name] of names.entries()) {
      const frame = i - (names.length - files.length);
      const empty = frame >= 0 && manifest.moving[frame].gaussians === 0;
      const bytes = empty ? null : await source.bytes(name);
      all.push((frame < 0 ? stage.loadFixed(bytes, name) : stage.loadFrame(frame, bytes, name)).then(() => this.count(frame)));
    }
    this.settled().then(() => {
      this.times.ready = performance.now();
      document.body.classList.add("ready");
    });
    await Promise.race([Promise.all(all), new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
    this.drawing = true;
    await Promise.all(all);
  }

  // Take note of a file that is decoded.
  count(frame) {
    if (frame >= 0) this.loaded += 1;
    if (!this.manifest.moving.length) this.loaded = this.frames;
    if (this.loaded === this.frames) this.times.loaded = performance.now();
    this.label();
  }

  connect() {
    const { timeline } = this;
    byId("frame").max = this.frames - 1;
    byId("frame").addEventListener("input", () => this.seek(Number(byId("frame").value)));
    byId("play").addEventListener("click", () => this.toggle());
    byId("mode").addEventListener("click", () => this.nextMode());
    byId("home").addEventListener("click", () => this.view.home());
    byId("still").addEventListener("click", () => this.still());
    byId("help").addEventListener("click", () => document.body.classList.toggle("helped"));
    TABS.forEach((tab) => byId(`tab-${tab}`).addEventListener("click", () => this.choose(tab)));
    if (!this.manifest.video) {
      for (const tab of ["both", "video"]) {
        Object.assign(byId(`tab-${tab}`), { disabled: true, title: "There is no video with this scene." });
      }
    }
    document.body.classList.toggle("still-life", this.frames < 2);
    const commands = {
      " ": () => this.toggle(), ",": () => this.seek(timeline.frame - 1), ".": () => this.seek(timeline.frame + 1),
      l: () => this.nextMode(), h: () => this.view.home(), Home: () => this.view.home(), p: () => this.still(),
      "+": () => this.view.zoom(0.9), "-": () => this.view.zoom(1 / 0.9),
      "?": () => document.body.classList.toggle("helped"), Escape: () => document.body.classList.remove("helped"),
      1: () => this.choose("scene"), 2: () => this.choose("both"), 3: () => this.choose("video"),
    };
    const controls = this.controls = new Controls(this.view, commands);
    ["splats", "sphere"].forEach((id) => controls.listen(byId(id)));
    byId("splats").addEventListener("webglcontextlost", () => this.tell("The browser took the GPU away; reload the page."));
    offerHeadset(byId("headset"), this.stage, () => { this.view.changed = true; });
    this.label();
  }

  choose(tab) {
    if (byId(`tab-${tab}`).disabled) return;
    this.tab = tab;
    document.body.dataset.tab = tab;
    TABS.forEach((one) => byId(`tab-${one}`).setAttribute("aria-selected", one === tab));
    if (tab !== "scene") this.openVideo();
    this.resize();
  }

  async openVideo() {
    if (this.sphere || this.opening) return;
    this.opening = true;
    try {
      this.sphere = new Sphere(byId("sphere"), await this.source.bytes(this.manifest.video.file));
      this.resize();
      await this.sphere.opened;
      this.sphere.show(this.timeline.frame, this.frames);
    } catch (error) {
      byId("no-video").textContent = error.message;
    }
  }

  resize() {
    if (this.stage.renderer.xr.isPresenting) return;
    for (const [part, id] of [[this.stage, "splats"], [this.sphere, "sphere"]]) {
      const { clientWidth, clientHeight } = byId(id).parentElement;
      if (part && clientWidth && clientHeight) part.resize(clientWidth, clientHeight);
    }
    this.view.changed = true;
  }

  toggle() {
    if (this.timeline.playing) this.timeline.pause();
    else this.timeline.play();
    this.label();
  }

  nextMode() {
    this.timeline.mode = MODES[(MODES.indexOf(this.timeline.mode) + 1) % MODES.length];
    this.label();
  }

  seek(frame) {
    this.timeline.pause();
    this.timeline.seek(frame);
    this.follow();
  }

  // Show what the timeline says.
  follow() {
    this.stage.show(this.timeline.frame);
    if (this.sphere) this.sphere.show(this.timeline.frame, this.frames);
    this.label();
  }

  label() {
    const { frame, mode, playing } = this.timeline;
    byId("frame").value = frame;
    byId("count").textContent = this.loaded && this.loaded < this.frames
      ? `${frame + 1} / ${this.frames}, ${this.loaded} loaded` : `${frame + 1} / ${this.frames}`;
    byId("mode").textContent = mode;
    byId("play").setAttribute("aria-label", playing ? "pause" : "play");
    document.body.classList.toggle("playing", playing);
  }

  tick(now) {
    const presenting = this.stage.renderer.xr.isPresenting;
    this.controls.tick(Math.min(now - this.last, 100) / 1000);
    this.last = now;
    // A frame that is being sorted is shown before the next one is asked for.
    if ((this.tab === "video" || this.stage.caughtUp) && this.timeline.tick(now)) this.follow();
    else if (!this.timeline.playing && document.body.classList.contains("playing")) this.label();
    const turned = this.view.changed;
    if (turned && !presenting) {
      this.view.changed = false;
      for (const part of [this.stage, this.sphere]) {
        if (part) {
          this.view.apply(part.camera);
          part.dirty = true;
        }
      }
      this.plan.draw();
    }
    if (presenting || (this.drawing && this.stage.dirty && this.stage.complete && this.tab !== "video")) {
      if (presenting || turned || this.stage.caughtUp || !this.stage.draws) {
        this.stage.draw();
        this.readout.count(now);
      } else {
        this.stage.prepare();
      }
    }
    if (this.sphere && this.sphere.dirty && this.tab !== "scene") this.sphere.draw();
    this.readout.draw(now, () => this.stage.memory());
    if (this.waiting.length && this.isSettled()) this.waiting.splice(0).forEach((resolve) => resolve());
  }

  isSettled() {
    const { sphere, tab } = this;
    const sphereDone = tab === "scene" || (sphere && !sphere.dirty && sphere.shown === this.timeline.frame);
    return !this.view.changed && sphereDone && (tab === "video" || this.stage.settled);
  }

  // Resolve when the page shows what was asked of it.
  settled() {
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  // Save the view as a picture, at the size of the canvas.
  async still() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await this.picture());
    link.download = `pano4d_frame_${String(this.timeline.frame).padStart(4, "0")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Draw and read back at once: the canvas keeps nothing after the browser has shown it.
  picture() {
    const [part, id] = this.tab === "video" ? [this.sphere, "sphere"] : [this.stage, "splats"];
    part.draw();
    return new Promise((resolve) => byId(id).toBlob(resolve, "image/png"));
  }

  // What scripts and tests may use.
  api() {
    const { timeline, view } = this;
    const player = this;
    return {
      get ready() { return document.body.classList.contains("ready"); },
      get loaded() { return player.loaded === player.frames; },
      get frame() { return timeline.frame; },
      get shown() { return player.stage.shown; },
      frames: this.frames,
      get playing() { return timeline.playing; },
      settled: () => this.settled(),
      setFrame: (frame) => { this.seek(frame); return this.settled(); },
      setView: (yaw, pitch, position = [0, 0, 0], fov = view.fov) => {
        view.look(yaw, pitch);
        view.moveTo(position);
        view.fov = fov;
        return this.settled();
      },
      view: () => ({ yaw: view.yaw, pitch: view.pitch, position: view.position, fov: view.fov, range: view.rangeM }),
      setMode: (mode) => { if (MODES.includes(mode)) timeline.mode = mode; this.label(); },
      setTab: (tab) => { this.choose(tab); return this.settled(); },
      play: () => { timeline.play(); this.label(); },
      pause: () => { timeline.pause(); this.label(); },
      still: () => this.picture(),
      stats: () => ({
        ...this.stage.memory(), fps: this.readout.rate, draws: this.stage.draws, frames: this.frames,
        gaussians: this.stage.spark.activeSplats, inlineFilesLeft: this.source.left(),
        renderer: this.stage.rendererName, loadedMs: this.times.loaded, readyMs: this.times.ready,
      }),
    };
  }
}

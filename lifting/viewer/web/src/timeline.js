// Which frame is due.

export const MODES = ["ping-pong", "loop", "once"];

export class Timeline {
  constructor(frames, fps) {
    this.frames = frames;
    this.fps = fps;
    this.mode = MODES[0];
    this.frame = 0;
    this.playing = false;
    this.step = 1;
    this.due = 0;
  }

  play(now = performance.now()) {
    if (this.frames < 2) return;
    if (this.mode === "once" && this.frame === this.frames - 1) this.frame = 0;
    if (this.mode !== "ping-pong") this.step = 1;
    this.playing = true;
    this.due = now + 1000 / this.fps;
  }

  pause() {
    this.playing = false;
  }

  seek(frame) {
    this.frame = Math.min(Math.max(Math.round(frame), 0), this.frames - 1);
  }

  // Go on by as many frames as are due. A frame that is late is left out, not drawn in haste.
  tick(now) {
    if (!this.playing || now < this.due) return false;
    const before = this.frame;
    const steps = 1 + Math.floor((now - this.due) * this.fps / 1000);
    this.due += steps * 1000 / this.fps;
    for (let i = 0; i < steps % (2 * this.frames) && this.playing; i++) this.advance();
    return this.frame !== before;
  }

  advance() {
    const next = this.frame + this.step;
    if (next >= 0 && next < this.frames) {
      this.frame = next;
    } else if (this.mode === "ping-pong") {
      this.step = -this.step;
      this.frame += this.step;
    } else if (this.mode === "loop") {
      this.frame = 0;
    } else {
      this.pause();
    }
  }
}

// Mouse, touch and keys.

const WALK = { w: [0, 0, 1], s: [0, 0, -1], a: [-1, 0, 0], d: [1, 0, 0], q: [0, 1, 0], e: [0, -1, 0] };
const TURN = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const TURN_DEG_PER_S = 60;
const WHEEL = 0.001;

export class Controls {
  constructor(view, commands) {
    this.view = view;
    this.held = new Set();
    this.pointers = new Map();
    window.addEventListener("keydown", (event) => this.keyDown(event, commands));
    window.addEventListener("keyup", (event) => this.held.delete(keyOf(event)));
    window.addEventListener("blur", () => this.held.clear());
  }

  // Let a canvas be dragged: one finger or button looks, two fingers zoom and go.
  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => this.pointerMove(event, canvas));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.view.zoom(Math.exp(WHEEL * event.deltaY));
    }, { passive: false });
  }

  pointerMove(event, canvas) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY];
    const [dx, dy] = [now[0] - last[0], now[1] - last[1]];
    const { view } = this;
    const perPixel = view.fov / Math.max(canvas.clientWidth, canvas.clientHeight);
    if (this.pointers.size === 1) {
      view.look(view.yaw - dx * perPixel, view.pitch + dy * perPixel);
    } else {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      view.zoom(distance(last, other) / Math.max(distance(now, other), 1));
      const scale = view.rangeM / canvas.clientHeight;
      view.move(-dx * scale, 0, dy * scale);
    }
    this.pointers.set(event.pointerId, now);
  }

  keyDown(event, commands) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = keyOf(event);
    // Where a button or the slider has the focus, these keys are its own.
    const taken = event.target.closest("button") ? [" ", "Enter"] : event.target.closest("input") ? Object.keys(TURN) : [];
    if (taken.includes(key)) return;
    if (WALK[key] || TURN[key]) this.held.add(key);
    else if (commands[key]) commands[key]();
    else return;
    event.preventDefault();
  }

  tick(seconds) {
    for (const key of this.held) {
      if (WALK[key]) this.view.move(...WALK[key].map((share) => share * seconds * this.view.rangeM));
      if (TURN[key]) {
        const [yaw, pitch] = TURN[key].map((share) => share * seconds * TURN_DEG_PER_S);
        this.view.look(this.view.yaw + yaw, this.view.pitch + pitch);
      }
    }
  }
}

function keyOf(event) {
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

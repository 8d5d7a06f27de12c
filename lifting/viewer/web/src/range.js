// The safe range as a small plan seen from above, its upper edge ahead at first: drag the dot to go there.

const RADIUS = 40;

export class RangePlan {
  constructor(svg, label, view) {
    Object.assign(this, { svg, label, view });
    this.you = svg.querySelector(".you");
    this.level = svg.querySelector(".level");
    const go = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = 2 * view.rangeM * 50 / RADIUS;
      const x = (event.clientX - box.left) / box.width - 0.5;
      const ahead = 0.5 - (event.clientY - box.top) / box.height;
      view.moveTo([x * scale, view.position[1], ahead * scale]);
    };
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      go(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (svg.hasPointerCapture(event.pointerId)) go(event);
    });
  }

  draw() {
    const { view } = this;
    const [x, y, z] = view.position.map((value) => value / view.rangeM * RADIUS);
    this.you.setAttribute("transform", `translate(${x} ${-z}) rotate(${view.yaw})`);
    this.level.setAttribute("cy", y);
    this.svg.classList.toggle("limit", view.atLimit);
    this.label.textContent = view.atLimit ? "edge of safe range" : `safe range ${length(view.rangeM)}`;
  }
}

function length(metres) {
  return metres < 1 ? `${(100 * metres).toPrecision(2)} cm` : `${metres.toPrecision(2)} m`;
}

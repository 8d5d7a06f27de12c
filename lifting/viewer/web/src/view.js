// Where the viewer stands and looks: degrees and metres, axes of the files (x right, y down, z forward).

const WIDEST_DEG = 110;
const NARROWEST_DEG = 20;
const STEEPEST_DEG = 89.9;

export class View {
  constructor(rangeM) {
    this.rangeM = rangeM;
    this.home();
  }

  home() {
    this.yaw = 0;
    this.pitch = 0;
    this.fov = 75; // over the longer side of the picture
    this.position = [0, 0, 0];
    this.changed = true;
  }

  look(yaw, pitch) {
    this.yaw = ((yaw + 180) % 360 + 360) % 360 - 180;
    this.pitch = Math.min(Math.max(pitch, -STEEPEST_DEG), STEEPEST_DEG);
    this.changed = true;
  }

  zoom(factor) {
    this.fov = Math.min(Math.max(this.fov * factor, NARROWEST_DEG), WIDEST_DEG);
    this.changed = true;
  }

  // Stand somewhere, or where the safe range ends on the way there.
  moveTo(position) {
    const length = Math.hypot(...position);
    const share = length > this.rangeM ? this.rangeM / length : 1;
    this.position = position.map((value) => value * share);
    this.changed = true;
  }

  // Go by metres to the right, down and ahead, as seen from here; ahead is level.
  move(right, down, ahead) {
    const yaw = this.yaw * Math.PI / 180;
    const [x, y, z] = this.position;
    this.moveTo([x + right * Math.cos(yaw) + ahead * Math.sin(yaw), y + down, z - right * Math.sin(yaw) + ahead * Math.cos(yaw)]);
  }

  get atLimit() {
    return Math.hypot(...this.position) > 0.999 * this.rangeM;
  }

  apply(camera) {
    const { yaw, pitch, position } = this;
    camera.rotation.set(pitch * Math.PI / 180, -yaw * Math.PI / 180, 0, "YXZ");
    camera.position.set(position[0], -position[1], -position[2]);
    const half = Math.tan(this.fov * Math.PI / 360);
    camera.fov = 2 * Math.atan(camera.aspect > 1 ? half / camera.aspect : half) * 180 / Math.PI;
    camera.updateProjectionMatrix();
  }
}

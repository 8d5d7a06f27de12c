// The panoramic video, seen from within.

import * as THREE from "three";

const VERTEX = `
varying vec3 direction;
void main() {
  direction = position;
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

// Raw values in, raw values out: the video's colours are not converted.
const FRAGMENT = `
varying vec3 direction;
uniform sampler2D panorama;
void main() {
  vec3 d = normalize(direction);
  vec2 at = vec2(atan(d.x, -d.z) / 6.283185307179586 + 0.5, asin(clamp(d.y, -1.0, 1.0)) / 3.141592653589793 + 0.5);
  gl_FragColor = vec4(texture2D(panorama, at).rgb, 1.0);
}`;

export class Sphere {
  constructor(canvas, bytes) {
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: false });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.camera = new THREE.PerspectiveCamera(60, 1, 0.1, 10);
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto" });
    this.video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    this.texture = new THREE.VideoTexture(this.video);
    Object.assign(this.texture, { minFilter: THREE.LinearFilter, generateMipmaps: false, wrapS: THREE.RepeatWrapping });
    this.scene = new THREE.Scene();
    this.scene.add(new THREE.Mesh(new THREE.BoxGeometry(2, 2, 2), new THREE.ShaderMaterial({
      vertexShader: VERTEX, fragmentShader: FRAGMENT, side: THREE.BackSide, uniforms: { panorama: { value: this.texture } },
    })));
    this.dirty = true;
    this.wanted = -1;
    this.shown = -1;
    this.opened = new Promise((resolve, reject) => {
      this.video.addEventListener("loadeddata", resolve, { once: true });
      this.video.addEventListener("error", () => reject(new Error("This browser cannot play the video.")), { once: true });
    });
  }

  // Show a frame of the scene's; a seek under way is finished first.
  async show(frame, frames) {
    this.wanted = frame;
    if (this.seeking) return;
    this.seeking = true;
    await this.opened.catch(() => {});
    while (this.shown !== this.wanted && !this.video.error) {
      const next = this.wanted;
      this.video.currentTime = (next + 0.5) / frames * this.video.duration;
      await new Promise((resolve) => this.video.addEventListener("seeked", resolve, { once: true }));
      this.shown = next;
      this.texture.needsUpdate = true;
      this.dirty = true;
    }
    this.seeking = false;
  }

  resize(width, height) {
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.dirty = true;
  }

  draw() {
    this.dirty = false;
    this.camera.position.set(0, 0, 0);
    this.renderer.render(this.scene, this.camera);
  }
}

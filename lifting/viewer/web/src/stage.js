// The splats of all frames, and the canvas that shows one of them.

import { PackedSplats, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";
import { BatchedSpark } from "./batches.js";

const NONE = new Uint32Array(0);
const BYTES_PER_SPLAT = 16;

export class Stage {
  constructor(canvas, has) {
    this.has = has;
    // Splats overlap so softly that the canvas's own smoothing would only cost time.
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: false });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(60, 1, 0.01, 1e5);
    this.dirty = true;
    this.draws = 0;
    this.packs = 0;
    // As in 3DGS: no splat is thinner than a pixel, and its opacity stays what the file says.
    this.spark = new BatchedSpark({
      renderer: this.renderer, preBlurAmount: 0.3, blurAmount: 0, maxStdDev: 3, maxPixelRadius: 2048,
      enableLod: false, onDirty: () => { this.dirty = true; },
    });
    this.scene.add(this.spark);
    this.fixed = null;
    this.moving = [];
    this.wanted = -1;
  }

  // Decode one file; its splats are packed here, and nowhere else. Without bytes the frame is empty: one splat that no one sees.
  async load(bytes, name) {
    const packed = new PackedSplats(bytes ? { fileBytes: bytes, fileName: name } : { construct: addUnseen });
    this.packs += 1;
    await packed.initialized;
    const mesh = new SplatMesh({ packedSplats: packed, editable: false, raycastable: false, enableLod: false });
    await mesh.initialized;
    mesh.rotation.x = Math.PI; // files: x right, y down, z forward; three: y up, z backward
    mesh.visible = false;
    this.scene.add(mesh);
    releaseOnceUploaded(packed);
    return mesh;
  }

  async loadFixed(bytes, name) {
    this.fixed = await this.load(bytes, name);
    this.fixed.visible = true;
    this.dirty = true;
  }

  async loadFrame(index, bytes, name) {
    this.moving[index] = await this.load(bytes, name);
    if (index === this.wanted) this.show(index);
  }

  // Whether there is a whole picture to draw; half of one would only delay it.
  get complete() {
    return this.draws > 0 || (!this.has.fixed || this.fixed) && (!this.has.moving || this.moving[this.wanted]);
  }

  show(index) {
    this.wanted = index;
    // Until a frame is decoded the one before it stays.
    if (!this.moving[index]) return;
    this.moving.forEach((mesh, i) => { mesh.visible = i === index; });
    this.dirty = true;
  }

  // The frame whose splats are on the canvas; -1 while there is none.
  get shown() {
    return this.moving.findIndex((mesh) => this.spark.display.mapping.some(({ node }) => node === mesh));
  }

  // Whether the canvas shows the frame that is wanted; its order may still be that of a direction nearby.
  get caughtUp() {
    if (!this.moving.length) return this.draws > 0;
    return !this.moving[this.wanted] || this.shown === this.wanted;
  }

  // Whether the canvas shows what is wanted, sorted for the present direction.
  get settled() {
    const { spark } = this;
    return !this.dirty && !spark.dirty && this.finished && !spark.sorting && !spark.sortDirty && spark.display === spark.current
      && (this.moving.length ? this.shown === this.wanted : this.draws > 0);
  }

  resize(width, height) {
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.dirty = true;
  }

  draw() {
    this.renderer.render(this.scene, this.camera);
    // Spark calls for a picture while it is asked for one; what it brought together then is on this one already.
    this.dirty = false;
    this.draws += 1;
    const gl = this.renderer.getContext();
    this.fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
  }

  // Bring the splats of the wanted frame together and sort them; to draw the old frame once more would only delay the new one.
  prepare() {
    this.dirty = false;
    this.spark.dirty = false;
    this.scene.updateMatrixWorld();
    this.spark.update({ scene: this.scene, camera: this.camera });
  }

  // Whether the GPU is done with the last picture; drawing in software, it may take seconds after all was said.
  get finished() {
    const gl = this.renderer.getContext();
    return !this.fence || gl.getSyncParameter(this.fence, gl.SYNC_STATUS) === gl.SIGNALED;
  }

  memory() {
    const meshes = [this.fixed, ...this.moving].filter(Boolean).map((mesh) => mesh.packedSplats);
    const own = [this.spark.display, ...this.spark.accumulators].reduce((sum, one) => sum + one.maxSplats, 0);
    return {
      packs: this.packs,
      hostBytes: meshes.reduce((sum, packed) => sum + packed.packedArray.byteLength, 0),
      gpuBytes: meshes.reduce((sum, packed) => sum + (packed.packedArray === NONE ? packed.maxSplats * BYTES_PER_SPLAT : 0), 0),
      drawingBytes: own * BYTES_PER_SPLAT,
      textures: this.renderer.info.memory.textures,
    };
  }

  // What draws.
  get rendererName() {
    const gl = this.renderer.getContext();
    const told = gl.getExtension("WEBGL_debug_renderer_info");
    return gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  }
}

function addUnseen(packed) {
  const [at, size] = [new THREE.Vector3(0, 0, 1), new THREE.Vector3(0.01, 0.01, 0.01)];
  packed.pushSplat(at, size, new THREE.Quaternion(), 0, new THREE.Color(0, 0, 0));
}

// Drop the host's copy of a frame when the GPU has its own.
function releaseOnceUploaded(packed) {
  const texture = packed.getTexture();
  texture.onUpdate = () => {
    const { width, height, depth } = texture.image;
    texture.source.data = { data: null, width, height, depth };
    packed.packedArray = NONE;
  };
}

// Spark's renderer, with many splats to an instance.

import { SparkRenderer } from "@sparkjsdev/spark";
import * as THREE from "three";

// Renderers in software, and some GPUs, take as long to begin an instance as to draw a hundred splats.
const BATCH = 128;
const NUMBER = `int number = gl_InstanceID * ${BATCH} + gl_VertexID / 4;
    if (number >= drawnSplats) return;
    ivec2 orderingCoord`;

export class BatchedSpark extends SparkRenderer {
  constructor(options) {
    super({ ...options, extraUniforms: { drawnSplats: { value: 0 } } });
    this.geometry = quads();
    const { material } = this;
    material.vertexShader = material.vertexShader.replaceAll("gl_InstanceID", "number")
      .replace("ivec2 orderingCoord", NUMBER).replace("void main()", "uniform int drawnSplats;\nvoid main()");
  }

  onBeforeRender(...drawn) {
    super.onBeforeRender(...drawn);
    this.uniforms.drawnSplats.value = this.activeSplats;
    this.geometry.instanceCount = Math.ceil(this.activeSplats / BATCH);
  }
}

// The corners of a batch; what a corner belongs to is told by its number.
function quads() {
  const geometry = new THREE.InstancedBufferGeometry();
  const corners = Array.from({ length: BATCH }, () => [-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0]).flat();
  const order = Array.from({ length: BATCH }, (_, i) => [0, 1, 2, 0, 2, 3].map((corner) => 4 * i + corner)).flat();
  geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(corners), 3));
  geometry.setIndex(new THREE.BufferAttribute(new Uint16Array(order), 1));
  return geometry;
}

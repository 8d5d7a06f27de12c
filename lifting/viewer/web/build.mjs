// Bundle src/ with Spark and three into viewer.js, and gather their licences.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const PARTS = ["@sparkjsdev/spark", "three", "fflate"];
const here = new URL(".", import.meta.url);
const read = (name) => readFileSync(new URL(name, here), "utf8");

const parts = PARTS.map((name) => {
  const { version, license } = JSON.parse(read(`node_modules/${name}/package.json`));
  return { name, version, license, text: read(`node_modules/${name}/LICENSE`).trim() };
});
const versions = parts.map(({ name, version, license }) => `${name} ${version} (${license})`).join(", ");

// Tests compare this with the sources, so that a bundle cannot be left behind.
const hash = createHash("sha256");
for (const name of ["build.mjs", "package-lock.json", ...readdirSync(new URL("src/", here)).sort().map((one) => `src/${one}`)]) {
  hash.update(read(name));
}

await build({
  absWorkingDir: new URL(".", here).pathname,
  entryPoints: ["src/main.js"],
  outfile: "viewer.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  banner: { js: `/* pano4d viewer, Apache-2.0; contains ${versions}: LICENSES.txt; sources ${hash.digest("hex")} */` },
});
writeFileSync(new URL("LICENSES.txt", here), `viewer.js contains the following software.\n\n${
  parts.map(({ name, version, text }) => `${"=".repeat(80)}\n${name} ${version}\n\n${text}\n`).join("\n")}`);

// Join the parts of the page.

import { Player } from "./player.js";
import { openSource } from "./source.js";

const NO_WEBGL2 = "This page draws with WebGL2, which this browser does not offer: switch on hardware acceleration in its "
  + "settings, or open the page in a current Chrome, Edge, Firefox or Safari.";

function tell(sentence) {
  document.getElementById("message").textContent = sentence;
  document.body.classList.add("told");
}

async function start() {
  if (!document.createElement("canvas").getContext("webgl2")) {
    tell(NO_WEBGL2);
    return;
  }
  try {
    const source = openSource();
    const player = new Player(source, await source.manifest(), tell);
    window.pano4d = player.api();
    await player.load();
  } catch (error) {
    tell(String(error.message || error));
    throw error;
  }
}

start();

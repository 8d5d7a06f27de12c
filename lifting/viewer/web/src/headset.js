// WebXR, where a headset is there.

export async function offerHeadset(button, stage, onChange) {
  const xr = navigator.xr;
  if (!xr || !(await xr.isSessionSupported("immersive-vr").catch(() => false))) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const { renderer } = stage;
    if (renderer.xr.isPresenting) {
      await renderer.xr.getSession().end();
      return;
    }
    renderer.xr.enabled = true;
    // The head begins in the panorama's centre, wherever the floor is.
    renderer.xr.setReferenceSpaceType("local");
    const session = await xr.requestSession("immersive-vr", { requiredFeatures: ["local"] });
    session.addEventListener("end", () => {
      renderer.xr.enabled = false;
      onChange(false);
    });
    stage.camera.position.set(0, 0, 0);
    stage.camera.rotation.set(0, 0, 0);
    await renderer.xr.setSession(session);
    onChange(true);
  });
}

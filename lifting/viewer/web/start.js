// Unpack what an exported page holds: 7 bits a character, so that any server and editor passes it on as text.
// NUL, CR and < would not survive in a page; they stand 128 higher, which the mask takes off again.

window.pano4dUnpack = (name) => {
  const element = document.querySelector(`script[data-name="${CSS.escape(name)}"]`);
  if (!element) throw new Error(`The page does not hold ${name}.`);
  const text = element.textContent;
  const bytes = new Uint8Array(Number(element.dataset.bytes));
  element.remove();
  const last = bytes.length % 7;
  const whole = bytes.length - last;
  let at = 0;
  const group = (out, to) => {
    let a = text.charCodeAt(at++) & 127;
    for (let shift = 1; shift < 8; shift++) {
      const b = text.charCodeAt(at++) & 127;
      out[to++] = (a << shift) | (b >> (7 - shift));
      a = b;
    }
  };
  for (let to = 0; to < whole; to += 7) group(bytes, to);
  if (last) {
    const rest = new Uint8Array(7);
    group(rest, 0);
    bytes.set(rest.subarray(0, last), whole);
  }
  return bytes;
};

(async () => {
  if (!window.DecompressionStream) {
    document.getElementById("message").textContent = "This browser is too old for this page: open it in a current Chrome, Edge, "
      + "Firefox or Safari.";
    return;
  }
  const program = new Blob([window.pano4dUnpack("viewer.js.gz")]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(program).text();
  document.body.append(script);
})();

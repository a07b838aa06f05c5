// custody-verify in a browser (or node): the exports of custody_verify_wasm.wasm as one function.
//
//   const verify = await load(await fetch('custody_verify_wasm.wasm'));
//   const { code, report } = verify(bytes, { keys: ['name+id+key'], checkpoint: '…' });
//
// code: 0 verified, 1 tampered, 2 unreadable, 64 the trust cannot be read; report: an object for 0
// and 1, a sentence otherwise. Nothing leaves the page.

export async function load(source) {
  const bytes = source instanceof Uint8Array ? source : new Uint8Array(await source.arrayBuffer());
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const { memory, input, trust, verify, output, output_len } = instance.exports;
  const put = (room, bytes) => {
    const at = room(bytes.length);
    // The memory may have grown: its buffer is looked at after the call.
    new Uint8Array(memory.buffer, at, bytes.length).set(bytes);
  };
  return (bundle, { keys = [], checkpoint = '' } = {}) => {
    const text = keys.join('\n') + (checkpoint ? '\n\n' + checkpoint : '');
    put(trust, new TextEncoder().encode(text));
    put(input, bundle);
    const code = verify();
    const said = new TextDecoder().decode(new Uint8Array(memory.buffer, output(), output_len()));
    return { code, report: code < 2 ? JSON.parse(said) : said };
  };
}

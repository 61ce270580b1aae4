// The SharedWorker: the hub of all tabs of this browser. It ends when the last of them is closed.

import { Hub, type ToHub } from "./hub.ts";

const hub = new Hub();

globalThis.addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port === undefined) return;
  port.onmessage = ({ data }: MessageEvent<ToHub>) =>
    hub.hear(port, data, (message) => port.postMessage(message));
});

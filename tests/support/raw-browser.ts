// A Chromium of which tabs are really hidden and really frozen: playwright-core keeps every page visible, and the browser
// freezes only what is hidden. So this speaks the browser's own protocol, with the few words that are needed.

import { within } from "./builders.ts";
import { CHROMIUM, CHROMIUM_ARGS } from "./page.ts";

const ANSWER_MS_MAX = 10_000;

type Answer = Readonly<{ id?: number; result?: Record<string, unknown>; error?: { message: string } }>;
type Event = Readonly<{ method?: string; sessionId?: string; params?: Record<string, unknown> }>;

export type RawTab = Readonly<{
  evaluate(expression: string): Promise<unknown>;
  /** In front of the others, which are hidden. */
  show(): Promise<void>;
  setFrozen(isFrozen: boolean): Promise<void>;
}>;

export async function launchRawBrowser(directory: string) {
  const child = Bun.spawn(
    [CHROMIUM, "--headless", ...CHROMIUM_ARGS, "--remote-debugging-port=0", `--user-data-dir=${directory}`],
    { stdout: "ignore", stderr: "pipe" },
  );
  const url = await within(ANSWER_MS_MAX * 2, "the browser", async () => {
    let text = "";
    for await (const chunk of child.stderr) {
      text += new TextDecoder().decode(chunk);
      const found = /DevTools listening on (ws:\S+)/.exec(text);
      if (found) return found[1]!;
    }
    throw new Error(`the browser ended: ${text}`);
  });
  const socket = new WebSocket(url);
  await within(ANSWER_MS_MAX, "the browser's socket", () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.onopen = () => resolve();
    return promise;
  });
  const waiting = new Map<number, (answer: Answer) => void>();
  /** Uncaught errors and errors on the console, of every tab. */
  const faults: string[] = [];
  let count = 0;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(String(data)) as Answer & Event;
    if (message.id !== undefined) waiting.get(message.id)?.(message);
    const { method, params } = message;
    const isError = method === "Runtime.consoleAPICalled" && params?.type === "error";
    if (isError || method === "Runtime.exceptionThrown") faults.push(JSON.stringify(params));
  };

  async function send(method: string, params: object, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++count;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) }));
    const { result, error } = await within(ANSWER_MS_MAX, method, () => promise);
    waiting.delete(id);
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result!;
  }

  return {
    faults,
    async open(address: string): Promise<RawTab> {
      const { targetId } = await send("Target.createTarget", { url: "about:blank" });
      const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
      const tell = (method: string, params: object = {}) => send(method, params, String(sessionId));
      await tell("Runtime.enable");
      await tell("Page.enable");
      await tell("Page.navigate", { url: address });
      return {
        async evaluate(expression) {
          const { result } = await tell("Runtime.evaluate", { expression, awaitPromise: true });
          return (result as { value?: unknown }).value;
        },
        show: async () => void (await send("Target.activateTarget", { targetId })),
        setFrozen: async (isFrozen) =>
          void (await tell("Page.setWebLifecycleState", { state: isFrozen ? "frozen" : "active" })),
      };
    },
    async [Symbol.asyncDispose]() {
      socket.close();
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

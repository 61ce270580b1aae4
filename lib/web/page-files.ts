// The page's four files, as they are sent. They are texts of the bundle, so the binary holds them and every answer
// carries our headers. This file stays small: Bun keeps the transpiled form of large ones, and the page would grow old.

import chartCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import pageHtml from "./page/index.html" with { type: "text" };
import pageCss from "./page/page.css" with { type: "text" };
import { bundlePage } from "./page-bundle.ts" with { type: "macro" };

type PageFile = Readonly<{
  path: string;
  type: string;
  text: string;
  /** A digest of the content, so each version has its own. Weak, because the gzipped form has the same. */
  etag: string;
  /** Made when first asked for, because the start does not wait for it. */
  gzipped: () => Uint8Array<ArrayBuffer>;
}>;

const script: string = bundlePage("main");
const worker: string = bundlePage("worker");
/** In its address, so that a page never speaks with the worker of another version that an older tab keeps alive. */
const workerPath = `worker.js?${digestOf(worker)}`;

export const pageFiles: readonly PageFile[] = [
  pageFile("/", "text/html; charset=utf-8", pageHtml.replace('"worker.js"', `"${workerPath}"`)),
  pageFile("/page.css", "text/css; charset=utf-8", `${chartCss}\n${pageCss}`),
  pageFile("/page.js", "text/javascript; charset=utf-8", script),
  pageFile("/worker.js", "text/javascript; charset=utf-8", worker),
];

/** The one script within the page, as a policy names it: by its hash. */
export const inlineScripts: readonly string[] = [...pageHtml.matchAll(/<script>(.*?)<\/script>/gs)].map(
  ([, text = ""]) => `'sha256-${new Bun.CryptoHasher("sha256").update(text).digest("base64")}'`,
);

function pageFile(path: string, type: string, text: string): PageFile {
  const etag = `W/"${digestOf(text)}"`;
  let kept: Uint8Array<ArrayBuffer> | undefined;
  const gzipped = () => {
    kept ??= Bun.gzipSync(text);
    return kept;
  };
  return { path, type, text, etag, gzipped };
}

function digestOf(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 16);
}

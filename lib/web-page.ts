// The page's three files, as they are sent. Texts of the bundle, so the binary holds them and every answer carries
// our headers. This file stays small: Bun keeps the transpiled form of large ones, and the page would grow old.

import chartCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import pageHtml from "./page/index.html" with { type: "text" };
import pageCss from "./page/page.css" with { type: "text" };
import { bundlePage } from "./web-bundle.ts" with { type: "macro" };

const script: string = bundlePage();

export const pageFiles: readonly (readonly [path: string, type: string, text: string])[] = [
  ["/", "text/html; charset=utf-8", pageHtml],
  ["/page.css", "text/css; charset=utf-8", `${chartCss}\n${pageCss}`],
  ["/page.js", "text/javascript; charset=utf-8", script],
];

// What the simulated exchange lists, and what holds for a symbol that it does not list: its asset class, a base price, how
// busy it is. Pure and without state; nothing here knows a clock, a socket or a client.

import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";

export type AssetClass = "stock" | "crypto" | "forex";

export type Instrument = Readonly<{
  symbol: string;
  displaySymbol: string;
  description: string;
  assetClass: AssetClass;
  basePrice: number;
  /** How busy it is while nobody scales the market. */
  tradesPerSecond: number;
}>;

/** What the exchange does with a subscription: it streams the symbol, refuses it with an error, or stays silent. */
type Treatment = AssetClass | "invalid" | "silent";

/** Exchanges as `/crypto/exchange` names them, in its mixed case. */
export const CRYPTO_EXCHANGES = [
  "KRAKEN",
  "HITBTC",
  "COINBASE",
  "GEMINI",
  "POLONIEX",
  "Binance",
  "ZB",
  "BITTREX",
  "KUCOIN",
  "OKEX",
  "BITFINEX",
  "HUOBI",
] as const;
export const FOREX_EXCHANGES = ["oanda", "fxcm", "forex.com", "ic markets", "fxpro"] as const;

const CRYPTO_PREFIXES = new Set(CRYPTO_EXCHANGES.map((name) => name.toUpperCase()));
/** Brokers that do not stream (FXCM, FOREX, FHFX, says Finnhub) are not here: they are silent. */
const FOREX_PREFIXES = new Set(["OANDA", "IC MARKETS", "FXPRO"]);
/** One to five letters as in the US, with the suffix of a class (BRK.B) or of an exchange (VOD.L). */
const STOCK_PATTERN = /^[A-Z]{1,5}([.-][A-Z]{1,2})?$/;
const PAIR_PATTERN = /^[A-Z0-9._/-]{1,40}$/;

// symbol, description, base price, trades per second
const STOCKS: readonly (readonly [string, string, number, number])[] = [
  ["AAPL", "APPLE INC", 232, 6],
  ["MSFT", "MICROSOFT CORP", 428, 4],
  ["AMZN", "AMAZON.COM INC", 214, 4],
  ["GOOGL", "ALPHABET INC-CL A", 182, 3],
  ["GOOG", "ALPHABET INC-CL C", 184, 2],
  ["META", "META PLATFORMS INC-CLASS A", 588, 3],
  ["NVDA", "NVIDIA CORP", 138, 8],
  ["TSLA", "TESLA INC", 342, 7],
  ["NFLX", "NETFLIX INC", 890, 1.5],
  ["AMD", "ADVANCED MICRO DEVICES", 142, 4],
  ["INTC", "INTEL CORP", 24.6, 3],
  ["AVGO", "BROADCOM INC", 168, 2],
  ["ORCL", "ORACLE CORP", 176, 1.2],
  ["CRM", "SALESFORCE INC", 318, 0.8],
  ["ADBE", "ADOBE INC", 512, 0.6],
  ["CSCO", "CISCO SYSTEMS INC", 57.4, 1],
  ["IBM", "INTL BUSINESS MACHINES CORP", 213, 0.7],
  ["QCOM", "QUALCOMM INC", 158, 0.9],
  ["TXN", "TEXAS INSTRUMENTS INC", 201, 0.5],
  ["MU", "MICRON TECHNOLOGY INC", 101, 1.5],
  ["PYPL", "PAYPAL HOLDINGS INC", 84.2, 0.9],
  ["UBER", "UBER TECHNOLOGIES INC", 71.5, 1.4],
  ["PLTR", "PALANTIR TECHNOLOGIES INC-A", 64.3, 4],
  ["COIN", "COINBASE GLOBAL INC -CLASS A", 292, 2],
  ["JPM", "JPMORGAN CHASE & CO", 246, 1],
  ["BAC", "BANK OF AMERICA CORP", 46.8, 1.8],
  ["GS", "GOLDMAN SACHS GROUP INC", 598, 0.3],
  ["WFC", "WELLS FARGO & CO", 75.1, 0.9],
  ["C", "CITIGROUP INC", 69.4, 0.9],
  ["V", "VISA INC-CLASS A SHARES", 310, 0.7],
  ["MA", "MASTERCARD INC - A", 522, 0.4],
  ["AIG", "AMERICAN INTERNATIONAL GROUP", 76.3, 0.3],
  ["BRK.B", "BERKSHIRE HATHAWAY INC-CL B", 472, 0.4],
  ["DIS", "WALT DISNEY CO/THE", 115, 0.8],
  ["NKE", "NIKE INC -CL B", 77.6, 0.7],
  ["KO", "COCA-COLA CO/THE", 63.7, 0.8],
  ["PEP", "PEPSICO INC", 160, 0.4],
  ["WMT", "WALMART INC", 88.4, 1],
  ["COST", "COSTCO WHOLESALE CORP", 945, 0.4],
  ["MCD", "MCDONALD'S CORP", 292, 0.3],
  ["XOM", "EXXON MOBIL CORP", 121, 1.1],
  ["CVX", "CHEVRON CORP", 161, 0.6],
  ["JNJ", "JOHNSON & JOHNSON", 155, 0.5],
  ["PFE", "PFIZER INC", 25.6, 1.2],
  ["UNH", "UNITEDHEALTH GROUP INC", 600, 0.4],
  ["BA", "BOEING CO/THE", 150, 0.8],
  ["GE", "GENERAL ELECTRIC", 181, 0.5],
  ["F", "FORD MOTOR CO", 11.2, 1.3],
  ["GM", "GENERAL MOTORS CO", 58.5, 0.7],
  ["T", "AT&T INC", 23.1, 1],
  ["VZ", "VERIZON COMMUNICATIONS INC", 42.8, 0.7],
  ["SPY", "SPDR S&P 500 ETF TRUST", 597, 8],
  ["QQQ", "INVESCO QQQ TRUST SERIES 1", 506, 6],
  ["IWM", "ISHARES RUSSELL 2000 ETF", 238, 3],
];

/** In US dollars: coins and currencies, from which every pair gets its price. */
const DOLLARS: Readonly<Record<string, number>> = {
  BTC: 67_000,
  XBT: 67_000,
  ETH: 3_300,
  BNB: 640,
  SOL: 215,
  XRP: 0.62,
  DOGE: 0.16,
  ADA: 0.48,
  TRX: 0.17,
  AVAX: 34,
  LINK: 14.5,
  DOT: 6.1,
  LTC: 84,
  BCH: 430,
  UNI: 9.2,
  ATOM: 5.9,
  XLM: 0.12,
  SHIB: 0.000_021,
  PEPE: 0.000_012,
  USDT: 1,
  USDC: 1,
  BUSD: 1,
  USD: 1,
  EUR: 1.085,
  GBP: 1.27,
  JPY: 0.0066,
  AUD: 0.655,
  NZD: 0.595,
  CAD: 0.72,
  CHF: 1.13,
  TRY: 0.029,
  BRL: 0.173,
};
/** Longest first, so that USDT is not read as T after USD. */
const QUOTES = ["USDT", "USDC", "BUSD", "USD", "EUR", "GBP", "JPY", "BTC", "ETH", "TRY", "BRL"] as const;

const BINANCE_COINS: readonly (readonly [string, number])[] = [
  ["BTC", 12],
  ["ETH", 8],
  ["SOL", 5],
  ["XRP", 4],
  ["DOGE", 4],
  ["BNB", 3],
  ["ADA", 2],
  ["LTC", 1.5],
  ["LINK", 1.5],
  ["AVAX", 1.5],
  ["TRX", 1],
  ["DOT", 1],
  ["BCH", 0.8],
  ["UNI", 0.6],
  ["ATOM", 0.6],
  ["XLM", 0.6],
  ["SHIB", 1],
  ["PEPE", 1.5],
];

const CURRENCIES: Readonly<Record<string, string>> = {
  EUR: "Euro",
  GBP: "British Pound",
  AUD: "Australian Dollar",
  NZD: "New Zealand Dollar",
  USD: "US Dollar",
  JPY: "Japanese Yen",
  CAD: "Canadian Dollar",
  CHF: "Swiss Franc",
};
// base, quote, trades (that is: quotes) per second
const FOREX_PAIRS: readonly (readonly [string, string, number])[] = [
  ["EUR", "USD", 4],
  ["GBP", "USD", 3],
  ["USD", "JPY", 3],
  ["AUD", "USD", 2],
  ["USD", "CAD", 2],
  ["USD", "CHF", 1.5],
  ["NZD", "USD", 1],
  ["EUR", "GBP", 1],
];
/** IC Markets numbers its symbols: 1, 2 and 5 are these. */
const IC_MARKETS: Readonly<Record<string, readonly [string, string]>> = {
  "1": ["EUR", "USD"],
  "2": ["GBP", "USD"],
  "5": ["AUD", "USD"],
};

/** Everything listed: what the REST lists show and /search finds. */
export const LISTINGS: readonly Instrument[] = [
  ...STOCKS.map(
    ([symbol, description, basePrice, tradesPerSecond]): Instrument => ({
      symbol,
      displaySymbol: symbol,
      description,
      assetClass: "stock",
      basePrice,
      tradesPerSecond,
    }),
  ),
  ...BINANCE_COINS.map(([coin, tradesPerSecond]) =>
    cryptoListing("BINANCE", `${coin}USDT`, `${coin}/USDT`, tradesPerSecond),
  ),
  ...["BTC", "ETH", "SOL"].flatMap((coin) => [
    cryptoListing("COINBASE", `${coin}-USD`, `${coin}/USD`, 3),
    cryptoListing("KRAKEN", `${coin}USD`, `${coin}/USD`, 1),
  ]),
  ...FOREX_PAIRS.map(
    ([base, quote, tradesPerSecond]): Instrument => ({
      symbol: `OANDA:${base}_${quote}`,
      displaySymbol: `${base}/${quote}`,
      description: `Oanda ${CURRENCIES[base]} vs ${CURRENCIES[quote]} ${base}${quote}`,
      assetClass: "forex",
      basePrice: pairPrice(base, quote),
      tradesPerSecond,
    }),
  ),
  ...Object.entries(IC_MARKETS).map(
    ([number, [base, quote]]): Instrument => ({
      symbol: `IC MARKETS:${number}`,
      displaySymbol: `${base}/${quote}`,
      description: `IC MARKETS ${CURRENCIES[base]} vs ${CURRENCIES[quote]} ${base}${quote}`,
      assetClass: "forex",
      basePrice: pairPrice(base, quote),
      tradesPerSecond: 3,
    }),
  ),
];

const LISTED = new Map(LISTINGS.map((instrument) => [instrument.symbol, instrument]));

/** What becomes of a subscription to this symbol, listed or not. */
export function treatmentOf(symbol: string): Treatment {
  if (symbol.length > SYMBOL_LENGTH_MAX) return "silent";
  const colon = symbol.indexOf(":");
  if (colon < 0) return STOCK_PATTERN.test(symbol) ? "stock" : "silent";
  const prefix = symbol.slice(0, colon);
  if (prefix === "FX") return "invalid";
  if (!PAIR_PATTERN.test(symbol.slice(colon + 1))) return "silent";
  if (CRYPTO_PREFIXES.has(prefix)) return "crypto";
  return FOREX_PREFIXES.has(prefix) ? "forex" : "silent";
}

/** The listing, or one made up from the symbol's hash, so that whatever a user configured trades. */
export function instrumentOf(symbol: string): Instrument | null {
  const listed = LISTED.get(symbol);
  if (listed !== undefined) return listed;
  const treatment = treatmentOf(symbol);
  if (treatment === "invalid" || treatment === "silent") return null;
  const share = hashOf(symbol) / 2 ** 32;
  return {
    symbol,
    displaySymbol: symbol.slice(symbol.indexOf(":") + 1),
    description: symbol,
    assetClass: treatment,
    basePrice: guessedPrice(symbol, treatment, share),
    // 0.3 to 3 a second: even the quietest prints every few seconds, or its owner takes it for broken.
    tradesPerSecond: 0.3 * 10 ** ((share * 97) % 1),
  };
}

/** FNV-1a, 32 bits, unsigned. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}

function cryptoListing(exchange: string, pair: string, display: string, tradesPerSecond: number): Instrument {
  const name = exchange.charAt(0) + exchange.slice(1).toLowerCase();
  const [coin = "", quote = ""] = display.split("/");
  return {
    symbol: `${exchange}:${pair}`,
    displaySymbol: display,
    description: `${name} ${coin}${quote}`,
    assetClass: "crypto",
    basePrice: pairPrice(coin, quote),
    tradesPerSecond,
  };
}

function pairPrice(base: string, quote: string): number {
  return (DOLLARS[base] ?? 1) / (DOLLARS[quote] ?? 1);
}

function guessedPrice(symbol: string, assetClass: AssetClass, share: number): number {
  if (assetClass === "stock") return 10 * 40 ** share;
  const pair = symbol.slice(symbol.indexOf(":") + 1).replace(/[._/-]/g, "");
  if (assetClass === "forex") {
    const [base, quote] = [pair.slice(0, 3), pair.slice(3)];
    return base in DOLLARS && quote in DOLLARS ? pairPrice(base, quote) : 0.7 + share;
  }
  const quote = QUOTES.find((name) => pair.endsWith(name) && pair.length > name.length) ?? "USD";
  const coin = pair.endsWith(quote) ? pair.slice(0, -quote.length) : pair;
  // An unknown coin costs something between a cent and a hundred dollars.
  return (DOLLARS[coin] ?? 0.01 * 10_000 ** share) / (DOLLARS[quote] ?? 1);
}

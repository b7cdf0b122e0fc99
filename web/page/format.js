// Numbers and times in the words of the page. Pure functions.

const integer = new Intl.NumberFormat('en');

/** 1204 → "1,204". */
export const count = (n) => integer.format(n);

/** Word with its number: plural(1, 'prompt') → "1 prompt". */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

/**
 * A duration in milliseconds as a person says it: "840 ms", "3.2 s",
 * "4 min 05 s", "2 h 10 min". coarse leaves out fractions, for a running
 * clock. null and undefined give "–".
 */
export function duration(ms, coarse = false) {
  if (ms == null || !Number.isFinite(ms)) return '–';
  if (ms < 1000 && !coarse) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95 || (coarse && seconds < 60)) return coarse ? `${Math.floor(seconds)} s` : `${seconds.toFixed(1)} s`;
  const whole = coarse ? Math.floor(seconds) : Math.round(seconds);
  const pad = (n) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** A number of bytes: "840 B", "12 KB", "3.4 MB", in powers of 1024 as file managers count. */
export function bytes(n) {
  if (n == null || !Number.isFinite(n)) return '–';
  if (n < 1024) return `${n} B`;
  const units = ['KB', 'MB', 'GB', 'TB'];
  let unit = -1;
  for (; unit < units.length - 1 && (unit < 0 || n >= 1023.5); unit++) n /= 1024;
  return `${n < 9.95 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** A moment relative to now (both in ms): "just now", "4 min ago", "2 d ago". */
export function relative(then, now) {
  const seconds = Math.round((now - then) / 1000);
  if (!Number.isFinite(seconds)) return '–';
  if (seconds < 5) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 30 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return new Date(then).toISOString().slice(0, 10);
}

const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** The exact moment in local time with its zone, for a title. */
export function exact(then) {
  const date = new Date(then);
  if (Number.isNaN(date.getTime())) return '';
  return moment.format(date);
}

/** Local time of day with milliseconds: "04:00:00.123". */
export function clock(then) {
  const date = new Date(then);
  if (Number.isNaN(date.getTime())) return '–';
  const pad = (n, width = 2) => String(n).padStart(width, '0');
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`;
}

/** The time from one moment to another in seconds: "5.63 s". */
export function offset(from, to) {
  const ms = Date.parse(to) - Date.parse(from);
  return Number.isFinite(ms) ? `${(Math.max(0, ms) / 1000).toFixed(2)} s` : '–';
}

/** US dollars of a decimal string or number, with as many digits as matter; '' when unknown. */
export function cost(value) {
  if (value == null || value === '') return '';
  const dollars = Number(value);
  if (!Number.isFinite(dollars)) return '';
  if (dollars === 0) return '$0';
  return dollars < 0.01 ? `$${dollars.toPrecision(2)}` : `$${dollars.toFixed(2)}`;
}

/** Where an execution comes from: "retry of 41", "fork of 41 from draft". */
export const lineageText = ({ parent, origin, from }) => `${origin} of ${parent}${from ? ` from ${from}` : ''}`;

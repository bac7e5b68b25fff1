// Prints numbers as Python does: after rounding to twelve significant digits, half to even.

const DIGITS = 12; // those behind depend on the order in which floats were added

/** A number with a count of decimals: 0.0625 with three is 0.062, where toFixed would round up. */
export function fixed(value, places) {
  const { digits, exponent } = decimal(value);
  const whole = rounded(digits, places + exponent + 1 - DIGITS).toString();
  const text = whole.padStart(places + 1, '0');
  const cut = text.length - places;
  const minus = value < 0 && Number(whole) ? '−' : '';
  return minus + text.slice(0, cut) + (places ? '.' + text.slice(cut) : '');
}

/** A number's leading digits as an integer, and the exponent of the first digit. */
function decimal(value) {
  const [mantissa, exponent] = Math.abs(value)
    .toExponential(DIGITS - 1)
    .split('e');
  return { digits: BigInt(mantissa.replace('.', '')), exponent: Number(exponent) };
}

/** digits · 10^shift rounded to an integer, half to even. */
function rounded(digits, shift) {
  if (shift >= 0) return digits * 10n ** BigInt(shift);
  const unit = 10n ** BigInt(-shift);
  const whole = digits / unit,
    rest = 2n * (digits % unit);
  return rest > unit || (rest === unit && whole % 2n) ? whole + 1n : whole;
}

/** A number in a cell: three decimals, fewer where it is large, one digit or a power of ten where it is very small; a
 * `narrow` cell has room for about four characters. */
export function number(value, narrow = false) {
  const size = Math.abs(Number(value.toPrecision(DIGITS)));
  if (!size) return narrow ? '0' : '0.000';
  if (!Number.isFinite(size)) return value > 0 ? '∞' : '−∞';
  if (size <= (narrow ? 0.005 : 0.00005) || size >= (narrow ? 1e4 : 1e6))
    return power(value, narrow && size < 1 ? 0 : 1);
  if (size <= 0.0005 && !narrow) return fixed(value, 4);
  const places = size < 100 ? 3 : size < 1000 ? 2 : size < 10000 ? 1 : 0;
  return fixed(value, narrow ? [2, 1, 0, 0][Math.max(0, Math.floor(Math.log10(size)))] : places);
}

/** A power of ten behind so many decimals. */
export function power(value, places) {
  const { digits, exponent } = decimal(value);
  const text = rounded(digits, places + 1 - DIGITS).toString();
  const over = text.length - places - 1; // 9.96 is 1.0e1
  const mantissa = text[0] + (places ? `.${text.slice(1, places + 1)}` : '');
  return `${value < 0 ? '−' : ''}${mantissa}e${exponent + over}`.replace('e-', 'e−');
}

/** A number of a vector, without trailing zeros. */
export function typed(value) {
  if (!value) return '0';
  if (Math.abs(value) < 0.0005 || Math.abs(value) >= 1e6) return power(value, 1);
  return fixed(value, 3).replace(/\.?0+$/, '');
}

/** A factor, in brackets if it is negative. */
export function factor(value) {
  return value < 0 ? `(${typed(value)})` : typed(value);
}

/** A share in per cent; only exactly 0 prints as 0, and only exactly 1 as 100. */
export function percent(share) {
  const exact = 100 * Number(share.toPrecision(DIGITS));
  if (!exact) return '0 %';
  const size = Math.abs(exact);
  if (size < 0.001) return '< 0.001 %';
  if (size < 0.1) return `${trimmed(exact)} %`;
  const text = fixed(exact, 1);
  return text === '100.0' && exact < 100 ? '> 99.9 %' : `${text} %`;
}

/** Two significant digits of a share below a tenth of a per cent. */
function trimmed(exact) {
  return fixed(exact, Math.abs(exact) < 0.01 ? 4 : 3);
}

/** A share in a cell, with one decimal; a smaller one prints as below 0.1, not as 0. */
export function share(weight, narrow = false) {
  const exact = 100 * Number(weight.toPrecision(DIGITS)),
    unit = narrow ? '' : '\u202f%';
  if (!exact) return `0${unit}`;
  if (exact <= 0.05) return `<0.1${unit}`;
  const text = fixed(exact, 1);
  return text === '100.0' && exact < 100 ? `>99.9${unit}` : `${text}${unit}`;
}

/** A whole number in groups of three. */
export function whole(n) {
  return n < 1e6 ? String(n).replace(/\B(?=(\d{3})+$)/g, ',') : short(n);
}

/** Three digits and a unit. */
function short(n) {
  const units = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let at = 0;
  while (n >= 999.5 && at < units.length - 1) {
    n /= 1000;
    at += 1;
  }
  return `${n >= 100 ? n.toFixed(0) : n.toPrecision(3)} ${units[at]}`;
}

/** Parse a typed number, which may have a decimal comma or a real minus sign; NaN if it is not a number. */
export function parsed(text) {
  const plain = text
    .trim()
    .replace(/[−–]/g, '-')
    .replace(/^([^.,]*),([^.,]*)$/, '$1.$2');
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : NaN;
}

/** Subscript digits. */
export function sub(n) {
  return String(n).replace(/\d/g, (digit) => '₀₁₂₃₄₅₆₇₈₉'[digit]);
}

// Texts that a model, or whoever speaks through it, may try. Payloads times
// the places of Markdown where a careless reader would let them through.

const PAYLOADS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg onload=alert(1)>',
  '<iframe srcdoc="<script>alert(1)</script>">',
  '<a href="javascript:alert(1)">a</a>',
  '<style>*{display:none}</style>',
  '<base href="https://evil.test/">',
  '<form action="https://evil.test"><input name=q>',
  '<details open ontoggle=alert(1)>',
  '<math><mtext></table><mglyph><style><img src onerror=alert(1)>',
  '</textarea><script>alert(1)</script>',
  '"><script>alert(1)</script>',
  "' onmouseover='alert(1)",
  '<!--<img src="--><img src=x onerror=alert(1)>',
  '&lt;script&gt;alert(1)&lt;/script&gt;',
  'javascript:alert(1)',
  'java\tscript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'https://x.test/"onmouseover="alert(1)',
  'https://x.test/<script>alert(1)</script>',
  '\u202Egpj.exe\u202C',
  '\u0000\u0001\u001B[31m',
  '\uD800 alone \uDC00',
  '__proto__ constructor toString',
  '${alert(1)} {{constructor.constructor("alert(1)")()}}',
];

const PLACES = [
  (x) => x,
  (x) => `**${x}**`,
  (x) => `# ${x}`,
  (x) => `- ${x}\n  - ${x}`,
  (x) => `> ${x}`,
  (x) => `|${x}|b|\n|-|-|\n|${x}|c|`,
  (x) => `\`${x}\``,
  (x) => `\`\`\`${x}\n${x}`,
  (x) => `[a](${x})`,
  (x) => `![${x}](${x})`,
  (x) => `[${x}](https://x.test/${x} "${x}")`,
  (x) => `<${x}>`,
];

/** Every payload in every place. */
export const hostile = PAYLOADS.flatMap((payload) => PLACES.map((place) => place(payload)));

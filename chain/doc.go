// Package chain reads, checks and resolves chain documents: a chain is a list of prompts that run in sequence and in
// parallel, with inputs, variables and limits. The package is pure. It knows no database, no HTTP and no clock; whether
// models, tools and repositories exist is for others to check (Models, Tools, Repositories).
//
// # Documents
//
// Parse reads YAML or JSON. It is strict and reports everything that is wrong at once, each with a JSON pointer and a
// line. Of YAML it takes what JSON can say, up to 2 MiB; anchors and aliases are understood as long as they repeat little.
// Null is no way to leave a field out. A prompt without a position gets that of the prompt before it in the document plus
// one. Positions are made 1..n.
//
// # Variables
//
// A reference is written ${name} or {{name}}, with [A-Za-z0-9_-]+ for the name, spaces or tabs inside the braces allowed,
// and a dotted path into a JSON value after the name: ${outline.sections.0.title}. It stands, in this order, for
//
//  1. an entry of the prompt's mapping,
//  2. an input,
//  3. the output of an earlier prompt, by the slug of its name,
//  4. prompt_N_output, N being the 0-based index among the prompts by position, then place in the document,
//  5. knowledge, the retrieved context, in prompts that retrieve.
//
// Earlier means a smaller position. A reference to a later prompt, to one of the same position, to the prompt itself or to
// nothing is a problem of the document. Names are compared as they are; constructor is a name like any other.
//
// Whatever does not match the whole grammar is text: ${, ${a b}, ${a..b}, {{}}, {{#if x}}. A backslash before ${ or {{ makes
// the braces text and disappears, so \${topic} is ${topic}; two backslashes there stand for one. Elsewhere a backslash is
// just a backslash. What is inserted is never looked at again.
//
// Strings are inserted as they are, numbers in their shortest form, booleans as true and false, lists as their entries
// with ", " between them, objects and lists inside lists as compact JSON, null in JSON as null, files as their text. An
// optional input that was left out is empty text.
//
// The slug of a name without any of 0-9a-z is prompt-N, N being the 1-based place of the prompt in the document.
package chain

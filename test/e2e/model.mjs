// A model that writes what a test tells it to, when the test tells it to.

import { once } from 'node:events';
import { createServer } from 'node:http';

/** An OpenAI-compatible server; each call of it waits for the test. */
export class Model {
  url = '';
  #listener;
  #calls = [];
  #waiting = [];

  static async start() {
    const model = new Model();
    model.#listener = createServer((request, response) => model.#serve(request, response));
    model.#listener.listen(0, '127.0.0.1');
    await once(model.#listener, 'listening');
    model.url = `http://127.0.0.1:${model.#listener.address().port}/v1`;
    return model;
  }

  async #serve(request, response) {
    let body = '';
    for await (const piece of request.setEncoding('utf8')) body += piece;
    response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders();
    const call = new Call(JSON.parse(body), response);
    const taker = this.#waiting.shift();
    if (taker) taker(call);
    else this.#calls.push(call);
  }

  /** The next call that has not been taken. */
  async next() {
    return this.#calls.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  async stop() {
    this.#listener.close();
    this.#listener.closeAllConnections();
    await once(this.#listener, 'close');
  }
}

/** One call of the model. */
class Call {
  #response;

  constructor(request, response) {
    this.prompt = request.messages.at(-1).content;
    this.#response = response;
  }

  /** Streams a piece of text. */
  write(content) {
    this.#send({ choices: [{ index: 0, delta: { content } }] });
  }

  /** Ends the answer in good order. */
  end() {
    this.#send({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } });
    this.#response.end('data: [DONE]\n\n');
  }

  #send(chunk) {
    this.#response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  }
}

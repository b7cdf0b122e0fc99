// nginx in front of servers, as docs/operations.md has it, but for TLS.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const ROOT = new URL('../../', import.meta.url);

/** The one block of code of this language in a document. */
export async function documented(document, language) {
  const blocks = (await readFile(new URL(`docs/${document}`, ROOT), 'utf8')).split(`\n\`\`\`${language}\n`);
  if (blocks.length !== 2) throw new Error(`${document} has ${blocks.length - 1} blocks of ${language}, want one`);
  return `${blocks[1].split('\n```')[0]}\n`;
}

/** A running nginx. */
export class Nginx {
  url = '';
  credentials = { username: 'ada', password: 'a-password-of-the-tests' };
  #child;
  #dir;
  #log = '';

  /** Starts nginx in front of three addresses. Answers say in X-Upstream who gave them. */
  static async start(upstreams) {
    for (let attempt = 1; ; attempt++) {
      const nginx = new Nginx();
      try {
        await nginx.#begin(upstreams);
        return nginx;
      } catch (error) {
        await nginx.stop();
        if (attempt === 5) throw error; // somebody else may take the port, but not so often
      }
    }
  }

  async #begin(upstreams) {
    this.#dir = await mkdtemp(join(tmpdir(), 'chainstream-nginx-'));
    await chmod(this.#dir, 0o755);
    const port = await freePort();
    const address = `127.0.0.1:${port}`;
    this.url = `http://${address}`;
    let site = await documented('operations.md', 'nginx');
    const put = (old, text) => {
      if (site.split(old).length !== 2) throw new Error(`"${old}" does not stand once in the documented configuration`);
      site = site.replace(old, () => text);
    };
    upstreams.forEach((upstream, i) => put(`127.0.0.1:${8080 + i}`, upstream));
    put('listen 443 ssl http2;', `listen ${address};`);
    put('    ssl_certificate     /etc/nginx/chainstream.pem;\n', '');
    put('    ssl_certificate_key /etc/nginx/chainstream.key;\n', '');
    put('/etc/nginx/chainstream.htpasswd', join(this.#dir, 'chainstream.htpasswd'));
    put('https://chains.example.com', this.url);
    put('proxy_pass http://chainstream;', 'proxy_pass http://chainstream; add_header X-Upstream $upstream_addr always;');
    const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${this.#dir}/${kind};`);
    const user = process.geteuid() === 0 ? 'user root;' : '';
    const file = join(this.#dir, 'nginx.conf');
    const { username, password } = this.credentials;
    await writeFile(join(this.#dir, 'chainstream.htpasswd'), `${username}:{PLAIN}${password}\n`);
    await writeFile(file, `${user}\npid ${this.#dir}/nginx.pid;\nevents {}\nhttp {\naccess_log off;\n${places.join('\n')}\n${site}}\n`);
    const PATH = [process.env.PATH, '/usr/sbin'].join(delimiter); // where it is on Debian
    this.#child = spawn('nginx', ['-e', 'stderr', '-p', this.#dir, '-c', file, '-g', 'daemon off;'], { env: { PATH }, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr.setEncoding('utf8').on('data', (text) => (this.#log += text));
    let failure;
    this.#child.once('error', (error) => (failure = new Error(`nginx is missing: scripts/setup.sh --test installs it (${error.message})`)));
    for (;;) {
      if (failure) throw failure;
      if (this.#child.exitCode !== null) throw new Error(`nginx ended:\n${this.#log}`);
      if (await listens(port)) break;
      await pause(20);
    }
  }

  async stop() {
    const child = this.#child;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    }
    await rm(this.#dir, { recursive: true, force: true });
  }
}

async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  return port;
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

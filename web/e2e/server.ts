// A zbl-server of the test's own: the built binary on free ports, ended by its process id. It keeps its ports when it
// is killed and started again, as a server does that a page waits for.
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { vi } from 'vitest';

/** How long a server may take to be ready, milliseconds: it migrates an empty database first. */
const READY_MS = 60_000;
/** What is kept of what a program prints, characters. */
const OUTPUT_MAX = 20_000;

/** A program that runs until it is ended. */
interface Running {
    readonly child: ChildProcess;
    readonly output: () => string;
}

/** Where the binary is that a test needs; a missing one fails. */
function binary(variable: string): string {
    const path = process.env[variable];
    if (path === undefined || path === '') {
        throw new Error(`${variable} must name the built program`);
    }
    return path;
}

/** The environment without the project's own settings. */
function environment(): NodeJS.ProcessEnv {
    const isOurs = (name: string): boolean => name.startsWith('ZBL_') || name === 'DATABASE_URL';
    return Object.fromEntries(Object.entries(process.env).filter(([name]) => !isOurs(name)));
}

/** What `zbl-server explore --replay` says of a token, on a database of its own. */
export async function replay(token: string): Promise<string> {
    const args = ['explore', '--replay', token];
    return (await promisify(execFile)(binary('ZBL_SERVER'), args, { env: environment() })).stdout;
}

function run(path: string, args: readonly string[]): Running {
    const child = spawn(path, args, { env: environment(), stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const take = (data: Buffer): void => {
        output = (output + data.toString()).slice(-OUTPUT_MAX);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    // A program that cannot be started says so where it is waited for.
    child.on('error', (error) => take(Buffer.from(error.message)));
    return { child, output: () => output };
}

async function end({ child }: Running, signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode === null && child.signalCode === null && child.kill(signal)) {
        await once(child, 'exit');
    }
}

/** A server that runs. */
export class Server {
    #running: Running;
    readonly #args: readonly string[];
    readonly #scratch: string;
    /** The address of its gRPC port, HOST:PORT. */
    readonly grpc: string;
    /** Where its page is, without a slash at the end. */
    readonly origin: string;

    private constructor(grpc: string, http: string, scratch: string, settings: readonly string[]) {
        const database = process.env.ZBL_DATABASE_URL ?? `sqlite://${join(scratch, 'zbl.db')}`;
        this.#scratch = scratch;
        this.#args = ['serve', '--grpc-addr', grpc, '--http-addr', http, '--database-url', database, ...settings];
        this.#running = run(binary('ZBL_SERVER'), this.#args);
        this.grpc = grpc;
        this.origin = `http://${http}`;
    }

    /** Starts one with these settings, and waits until it is ready. */
    static async start(...settings: readonly string[]): Promise<Server> {
        const [grpc, http] = [await freePort(), await freePort()].map((port) => `127.0.0.1:${port}`);
        const server = new Server(grpc ?? '', http ?? '', mkdtempSync(join(tmpdir(), 'zbl-web-')), settings);
        await server.#ready().catch(async (error: unknown) => {
            await server.end();
            throw error;
        });
        return server;
    }

    async #ready(): Promise<void> {
        const answers = async (): Promise<boolean> => {
            const { exitCode, signalCode } = this.#running.child;
            if (exitCode !== null || signalCode !== null) {
                throw new Error(`the server has ended (${exitCode ?? signalCode ?? ''}):\n${this.#running.output()}`);
            }
            return await fetch(`${this.origin}/readyz`).then(({ status }) => status === 200, () => false);
        };
        await vi.waitUntil(answers, { timeout: READY_MS, interval: 100 });
    }

    /** `kill -9`. */
    async kill(): Promise<void> {
        await end(this.#running, 'SIGKILL');
    }

    /** Starts it again as it was. */
    async restart(): Promise<void> {
        this.#running = run(binary('ZBL_SERVER'), this.#args);
        await this.#ready();
    }

    /** Ends it, and removes what it kept. */
    async end(): Promise<void> {
        await end(this.#running, 'SIGTERM');
        rmSync(this.#scratch, { recursive: true, force: true });
    }
}

/** A loadgen at work. */
export class Load {
    readonly #running: Running;

    private constructor(running: Running) {
        this.#running = running;
    }

    /** Lets it work for that long, or until it is ended. */
    static start(server: Server, seconds: number, ...args: readonly string[]): Load {
        const always = ['--addr', server.grpc, '--duration', `${seconds}s`];
        return new Load(run(binary('ZBL_LOADGEN'), ['bench', ...always, ...args]));
    }

    /** Whether it still works; what it printed where it does not. */
    get trouble(): string | null {
        return this.#running.child.exitCode === null ? null : this.#running.output();
    }

    /** Ends it. */
    async end(): Promise<void> {
        await end(this.#running, 'SIGKILL');
    }
}

async function freePort(): Promise<number> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    server.close();
    await once(server, 'close');
    if (address === null || typeof address === 'string') {
        throw new Error('no port');
    }
    return address.port;
}

// Attacks under way and what came of them. The lab makes one at a time, so several are made one after another. Owns the
// results, which stay when the panel is left; an attack goes on meanwhile, so that it can be watched in the lanes.
import { signal } from '@preact/signals';

import { Guarantee, type Strategy } from '../../generated/zbl/v1/account_service_pb';
import type { AttackProgress, AttackResult } from '../../generated/zbl/v1/lab_service_pb';
import { failure, lab, type Failure } from '../../service';
import type { Plan } from './form';

/** Where results are shown: one, two beside each other, or all in a table. The last of each are kept, and no others. */
export type Show = 'one' | 'pair' | 'all';

/** An attack that is over, one way or the other. */
export type Ended = { readonly strategy: string; readonly plan: Plan } & (
    | { readonly is: 'judged'; readonly result: AttackResult }
    | { readonly is: 'failed'; readonly failure: Failure; readonly progress: AttackProgress | null }
    | { readonly is: 'stopped'; readonly progress: AttackProgress | null }
);

/** The attack under way. */
export interface Running {
    readonly show: Show;
    readonly strategy: string;
    readonly progress: AttackProgress | null;
    /** Which of how many it is, from 1. */
    readonly number: number;
    readonly of: number;
}

/** The attack under way, if any. */
export const running = signal<Running | null>(null);

/** The last results, by where they are shown. */
export const results = signal<Readonly<Record<Show, readonly Ended[]>>>({ one: [], pair: [], all: [] });

let stopping: AbortController | null = null;

/** Stops the attack under way, and those that were to follow. */
export function stop(): void {
    stopping?.abort();
}

/** Attacks with each of the strategies in turn. Does nothing while another attack is under way. */
export async function attack(show: Show, names: readonly string[], plan: Plan): Promise<void> {
    if (running.value !== null) {
        return;
    }
    const stop = new AbortController();
    stopping = stop;
    results.value = { ...results.value, [show]: [] };
    try {
        for (const [at, strategy] of names.entries()) {
            running.value = { show, strategy, progress: null, number: at + 1, of: names.length };
            const ended = await one(strategy, plan, stop.signal);
            results.value = { ...results.value, [show]: [...results.value[show], ended] };
            // A server that is gone, or a lab that is taken, is so for the next one too.
            if (ended.is === 'stopped' || (ended.is === 'failed' && ended.failure.reason !== 'STRATEGY_UNAVAILABLE')) {
                return;
            }
        }
    } finally {
        running.value = null;
    }
}

async function one(strategy: string, plan: Plan, stop: AbortSignal): Promise<Ended> {
    let progress: AttackProgress | null = null;
    try {
        for await (const { step } of lab.runAttack({ ...plan, strategy }, { signal: stop })) {
            if (step.case === 'result') {
                return { is: 'judged', strategy, plan, result: step.value };
            }
            if (step.case === 'progress') {
                progress = step.value;
                running.value = running.value && { ...running.value, progress };
            }
        }
    } catch (error) {
        if (!stop.aborted) {
            return { is: 'failed', strategy, plan, failure: failure(error), progress };
        }
    }
    if (stop.aborted) {
        return { is: 'stopped', strategy, plan, progress };
    }
    const cut: Failure = { reason: '', message: 'the stream ended without a result', away: true };
    return { is: 'failed', strategy, plan, failure: cut, progress };
}

/** A strategy that never loses, to run the same attack with: the one that locks the row if it is there. */
export function cure(offered: readonly Strategy[]): string | null {
    const safe = offered.filter(({ guarantee, available }) => available && guarantee === Guarantee.ALWAYS);
    return (safe.find(({ name }) => name === 'pessimistic') ?? safe[0])?.name ?? null;
}

// The history of an account: its journal as a tree, newest first, with what survived and what was lost. Draws the rows that
// can be seen; how the tree comes about is in history/tree.ts.
import { useComputed, useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';

import { decimal, signed } from '../money';
import { linkTo, note, place } from '../route';
import { Balances } from './history/balances';
import { Part, ROW_HEIGHT } from './history/graph';
import './history/history.css';
import { Following, HELD_MOST, type Journal } from './history/journal';
import { text } from './history/texts';
import { tree, type Row, type Tree } from './history/tree';

/** Rows that are drawn beyond what can be seen, on either side. */
const MARGIN = 10;

/** The account of the lab, which is there from the start. */
const FIRST_ACCOUNT = '1';

export function History() {
    const user = place.value.parameters.user ?? FIRST_ACCOUNT;
    const valid = /^[1-9]\d{0,18}$/.test(user);
    return (
        <>
            <section>
                <AccountForm user={user} />
            </section>
            {valid ? <Account key={user} user={user} /> : <p class="failure">{text.value.noAccount(user)}</p>}
        </>
    );
}

function AccountForm({ user }: { readonly user: string }) {
    const typed = useSignal(user);
    return (
        <form
            class="row"
            onSubmit={(event) => {
                event.preventDefault();
                note({ user: typed.value.trim() });
            }}
        >
            <label class="field">
                <span>{text.value.account}</span>
                <input
                    data-test="history-user"
                    inputMode="numeric"
                    pattern="[1-9][0-9]*"
                    required
                    value={typed.value}
                    onInput={(event) => (typed.value = event.currentTarget.value)}
                />
            </label>
            <button type="submit" class="primary">{text.value.show}</button>
            <a href={linkTo('lanes', { user })}>{text.value.lanes}</a>
        </form>
    );
}

function Account({ user }: { readonly user: string }) {
    const following = useMemo(() => new Following(BigInt(user)), [user]);
    useEffect(() => () => following.end(), [following]);
    const journal = following.journal.value;
    const grown = useComputed(() => tree(following.journal.value.entries)).value;
    if (journal.failure !== null) {
        return (
            <div class="failure" role="alert">
                <p>{`${journal.failure.reason} ${journal.failure.message}`}</p>
                <button type="button" onClick={() => void following.begin()}>{text.value.again}</button>
            </div>
        );
    }
    if (grown.rows.length === 0) {
        return <p class="hint">{text.value.loading}</p>;
    }
    return (
        <>
            <Totals tree={grown} />
            <section class="balances">
                <h2>{text.value.balances}</h2>
                <Balances tree={grown} />
            </section>
            <section>
                <h2>{text.value.versions}</h2>
                <Rows tree={grown} />
                <Older journal={journal} following={following} />
            </section>
        </>
    );
}

function Totals({ tree: grown }: { readonly tree: Tree }) {
    const difference = grown.balance - grown.expected;
    const off = difference === 0n ? 'kept' : 'lost';
    return (
        <section class="totals">
            <dl>
                <dt>{text.value.balance}</dt>
                <dd data-test="history-balance">{decimal(grown.balance)}</dd>
            </dl>
            <dl>
                <dt>{grown.isWhole ? text.value.expected : text.value.expectedOfPart}</dt>
                <dd data-test="history-expected">{decimal(grown.expected)}</dd>
            </dl>
            <dl class={off}>
                <dt>{text.value.difference}</dt>
                <dd data-test="history-difference">
                    {difference === 0n ? '✓ 0.00' : `✕ ${signed(difference)}`}
                </dd>
            </dl>
            <dl class={grown.lost === 0 ? 'kept' : 'lost'}>
                <dt>{text.value.lostEntries}</dt>
                <dd>
                    <span data-test="history-lost">{grown.lost}</span>
                    {grown.lost > 0 && ` (${signed(grown.lostDelta)})`}
                </dd>
            </dl>
        </section>
    );
}

function Older({ journal, following }: { readonly journal: Journal; readonly following: Following }) {
    const first = journal.entries[0]?.version ?? 1;
    if (first === 1) {
        return null;
    }
    return (
        <p class="row">
            <span class="hint">{text.value.older(first - 1)}</span>
            {journal.olderToken !== null && following.hasRoom ? (
                <button type="button" disabled={journal.isLoading} onClick={() => void following.older()}>
                    {text.value.load}
                </button>
            ) : (
                <span class="hint">{text.value.most(HELD_MOST)}</span>
            )}
        </p>
    );
}

/** The rows that can be seen of all there are; arrows choose one, n and p the next and the last lost one. */
function Rows({ tree: grown }: { readonly tree: Tree }) {
    const box = useRef<HTMLDivElement>(null);
    const top = useSignal(0);
    const chosen = useSignal<number | null>(null);
    const { rows } = grown;
    const height = box.current?.clientHeight ?? 600;
    const from = Math.max(0, Math.floor(top.value / ROW_HEIGHT) - MARGIN);
    const until = Math.min(rows.length, Math.ceil((top.value + height) / ROW_HEIGHT) + MARGIN);
    const newest = rows[0]?.entry.version ?? 0;
    const tips = useMemo(() => childless(rows), [rows]);

    const choose = (at: number): void => {
        const row = rows[Math.max(0, Math.min(rows.length - 1, at))];
        if (row === undefined || box.current === null) {
            return;
        }
        chosen.value = row.entry.version;
        const y = (newest - row.entry.version) * ROW_HEIGHT;
        if (y < box.current.scrollTop || y + ROW_HEIGHT > box.current.scrollTop + height) {
            box.current.scrollTop = y - height / 2;
        }
    };
    const onKey = (event: KeyboardEvent): void => {
        const now = chosen.value === null ? -1 : newest - chosen.value;
        const next = {
            ArrowDown: () => now + 1,
            ArrowUp: () => now - 1,
            n: () => rows.findIndex((row, at) => at > now && !row.survives),
            p: () => rows.findLastIndex((row, at) => at < now && !row.survives),
        }[event.key];
        if (next !== undefined) {
            event.preventDefault();
            const at = next();
            if (at >= 0) {
                choose(at);
            }
        }
    };
    return (
        <>
            <p class="hint">{text.value.keys}</p>
            <div
                class="versions"
                ref={box}
                tabIndex={0}
                role="listbox"
                aria-label={text.value.versions}
                data-test="history-rows"
                onKeyDown={onKey}
                onScroll={(event) => (top.value = event.currentTarget.scrollTop)}
            >
                <div style={{ height: rows.length * ROW_HEIGHT, position: 'relative' }}>
                    {rows.slice(from, until).map((row, at) => (
                        <Version
                            key={row.entry.version}
                            row={row}
                            columns={grown.columns}
                            isTip={tips.has(row.entry.version)}
                            isChosen={chosen.value === row.entry.version}
                            y={(from + at) * ROW_HEIGHT}
                            onChoose={() => (chosen.value = row.entry.version)}
                        />
                    ))}
                </div>
            </div>
            <Chosen row={rows[newest - (chosen.value ?? newest + 1)]} />
        </>
    );
}

/** The versions that no other entry had read. */
function childless(rows: readonly Row[]): ReadonlySet<number> {
    const tips = new Set(rows.map((row) => row.entry.version));
    for (const row of rows) {
        tips.delete(row.entry.before);
    }
    return tips;
}

interface VersionOf {
    readonly row: Row;
    readonly columns: number;
    readonly isTip: boolean;
    readonly isChosen: boolean;
    readonly y: number;
    readonly onChoose: () => void;
}

function Version({ row, columns, isTip, isChosen, y, onChoose }: VersionOf) {
    const { entry, survives, overwrittenBy } = row;
    return (
        <div
            class={`version ${survives ? 'survives' : 'overwritten'}`}
            role="option"
            aria-selected={isChosen}
            data-test={survives ? 'history-kept-row' : 'history-lost-row'}
            data-version={entry.version}
            style={{ top: y, height: ROW_HEIGHT }}
            onClick={onChoose}
        >
            <Part row={row} columns={columns} isTip={isTip} />
            <span class="mono at">v{entry.version}</span>
            <span class="kind">{text.value.kinds[entry.kind]}</span>
            <span class="delta mono">{entry.delta === 0n ? '' : signed(entry.delta)}</span>
            <span class="after mono">{decimal(entry.after)}</span>
            <span class="strategy">{entry.strategy}</span>
            <span class="request mono">{entry.requestId.slice(0, 8)}</span>
            <span class="fate">{overwrittenBy === null ? '' : text.value.lostTo(signed(entry.delta), overwrittenBy)}</span>
        </div>
    );
}

/** All there is to say about the chosen entry. */
function Chosen({ row }: { readonly row: Row | undefined }) {
    if (row === undefined) {
        return null;
    }
    const { entry } = row;
    return (
        <p class="chosen" aria-live="polite" data-test="history-chosen">
            <strong>v{entry.version}</strong> {text.value.read(entry.before)} · {text.value.kinds[entry.kind]}{' '}
            {signed(entry.delta)} · {text.value.leaves} {decimal(entry.after)}
            {entry.after !== row.expected && ` (${text.value.shouldBe(decimal(row.expected))})`} ·{' '}
            <span class="mono">{entry.requestId}</span>
            {entry.at !== null && ` · ${new Date(entry.at).toISOString()}`}
        </p>
    );
}

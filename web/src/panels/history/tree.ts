// An account's journal as the tree that it is: which entries are on the path that survived, which were overwritten and by
// whom, what the balance should have been, and where each is drawn. Pure: entries in, rows out.
import { EntryKind, type Entry } from '../../generated/zbl/v1/account_service_pb';
import { minor } from '../../money';

/** The most lines side by side. What branches off beyond that shares the last, which is drawn dotted. */
export const COLUMNS_MOST = 12;

/** An entry, as the tree takes it. */
export interface Held {
    readonly version: number;
    /** The version that its operation had read: its parent. */
    readonly before: number;
    readonly kind: EntryKind;
    /** Minor units. */
    readonly delta: bigint;
    /** The balance it left behind, minor units. */
    readonly after: bigint;
    readonly strategy: string;
    readonly requestId: string;
    /** When it was written, milliseconds since 1970; null where the server does not say. */
    readonly at: number | null;
}

/** What the contract says of an entry. */
export function held(entry: Entry): Held {
    return {
        version: Number(entry.version),
        before: Number(entry.versionBefore),
        kind: entry.kind,
        delta: minor(entry.delta) ?? 0n,
        after: minor(entry.balanceAfter) ?? 0n,
        strategy: entry.strategy,
        requestId: entry.requestId,
        at: entry.createTime ? Number(entry.createTime.seconds) * 1000 + entry.createTime.nanos / 1e6 : null,
    };
}

/** An entry in the tree. */
export interface Row {
    readonly entry: Held;
    /** Whether it is on the path from the newest version back to the opening. */
    readonly survives: boolean;
    /** The version that wrote over it; null where it survives. */
    readonly overwrittenBy: number | null;
    /** What the balance should be after it: every change counted since the last OPEN, RESET or REPAIR; minor units. */
    readonly expected: bigint;
    /** The line it is on; 0 is the trunk. */
    readonly column: number;
    /** Lines that pass by. */
    readonly passing: readonly number[];
    /** Lines of newer entries that had read this one, and end here. */
    readonly joining: readonly number[];
    /** Whether its own line goes on to an older entry. */
    readonly goesOn: boolean;
}

/** A journal, or its newest part. */
export interface Tree {
    /** The newest first. */
    readonly rows: readonly Row[];
    /** Entries that were overwritten, those that moved no money not counted. */
    readonly lost: number;
    /** The changes they had made, added up; minor units. */
    readonly lostDelta: bigint;
    /** The balance, and what it should be; minor units. */
    readonly balance: bigint;
    readonly expected: bigint;
    /** Lines side by side. */
    readonly columns: number;
    /** Whether `expected` counts from an OPEN, RESET or REPAIR; else from the oldest entry that is held. */
    readonly isWhole: boolean;
}

const BEGINS_ANEW: readonly EntryKind[] = [EntryKind.OPEN, EntryKind.RESET, EntryKind.REPAIR];

/**
 * The tree of these entries: contiguous, oldest first, up to the newest there is. The path is known from its end, so it
 * is exact however many older entries are missing.
 */
export function tree(entries: readonly Held[]): Tree {
    const path = survivors(entries);
    const expected = expectations(entries);
    const lines = new Lines();
    const rows: Row[] = [];
    let overwriter = 0;
    let lost = 0;
    let lostDelta = 0n;
    for (let at = entries.length - 1; at >= 0; at -= 1) {
        const entry = entries[at];
        if (entry === undefined) {
            break;
        }
        const survives = path.has(entry.version);
        if (survives) {
            overwriter = entry.version;
        } else if (entry.delta !== 0n) {
            lost += 1;
            lostDelta += entry.delta;
        }
        rows.push({
            entry,
            survives,
            // The next newer entry on the path had read a version before this one, or this one would be on the path.
            overwrittenBy: survives ? null : overwriter,
            expected: expected[at] ?? 0n,
            ...lines.place(entry, survives),
        });
    }
    const newest = rows[0];
    return {
        rows,
        lost,
        lostDelta,
        balance: newest?.entry.after ?? 0n,
        expected: newest?.expected ?? 0n,
        columns: lines.most,
        isWhole: entries.some((entry) => BEGINS_ANEW.includes(entry.kind)),
    };
}

/** The versions on the path from the newest entry back. */
function survivors(entries: readonly Held[]): ReadonlySet<number> {
    const first = entries[0]?.version ?? 0;
    const path = new Set<number>();
    let entry = entries.at(-1);
    while (entry !== undefined) {
        path.add(entry.version);
        entry = entry.before < entry.version ? entries[entry.before - first] : undefined;
    }
    return path;
}

/** What the balance should be after each entry. */
function expectations(entries: readonly Held[]): bigint[] {
    let sum: bigint | null = null;
    return entries.map((entry) => {
        sum = sum === null || BEGINS_ANEW.includes(entry.kind) ? entry.after : sum + entry.delta;
        return sum;
    });
}

/** Lines from entries to the older ones that they had read, as they are drawn from the newest entry downwards. */
class Lines {
    /** The version that each line leads to; null where the place is free. The trunk is always 0. */
    private readonly open: (number | null)[] = [null];
    /** Versions that lines lead to for which there was no place. */
    private readonly crowded = new Set<number>();
    most = 1;

    place(entry: Held, survives: boolean): Pick<Row, 'column' | 'passing' | 'joining' | 'goesOn'> {
        const joining = this.columnsTo(entry.version);
        this.crowded.delete(entry.version);
        const column = survives ? 0 : (joining.find((line) => line !== 0) ?? this.free());
        for (const line of joining) {
            this.open[line] = null;
        }
        const goesOn = entry.before > 0 && entry.before < entry.version;
        const passing = this.open.flatMap((to, line) => (to !== null && line !== column ? [line] : []));
        if (this.crowded.size > 0 && column !== COLUMNS_MOST && !passing.includes(COLUMNS_MOST)) {
            passing.push(COLUMNS_MOST);
        }
        if (goesOn && column < COLUMNS_MOST) {
            this.open[column] = entry.before;
        } else if (goesOn) {
            this.crowded.add(entry.before);
        }
        this.most = Math.max(this.most, column + 1, this.open.length);
        return { column, passing, joining: joining.filter((line) => line !== column), goesOn };
    }

    private columnsTo(version: number): number[] {
        const lines = this.open.flatMap((to, line) => (to === version ? [line] : []));
        return this.crowded.has(version) ? [...lines, COLUMNS_MOST] : lines;
    }

    /** The first free line beside the trunk. */
    private free(): number {
        const line = this.open.findIndex((to, at) => at > 0 && to === null);
        return line > 0 ? line : Math.min(Math.max(this.open.length, 1), COLUMNS_MOST);
    }
}

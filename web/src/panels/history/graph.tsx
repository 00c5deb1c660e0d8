// A row's part of the graph: the lines that pass, join and go on, and the entry's own sign. Lost lines are dashed and red,
// the trunk is thick and green; a lost entry is a cross, a surviving one a disc.
import { COLUMNS_MOST, type Row } from './tree';

/** The height of a row, pixels. */
export const ROW_HEIGHT = 28;
const COLUMN_WIDTH = 14;
const MIDDLE = ROW_HEIGHT / 2;

const x = (column: number): number => 10 + column * COLUMN_WIDTH;

/** The width of a graph of so many lines, pixels. */
export function graphWidth(columns: number): number {
    return x(columns - 1) + 12;
}

function kind(column: number): string {
    return column === 0 ? 'line trunk' : column === COLUMNS_MOST ? 'line branch crowded' : 'line branch';
}

/** The part of one row; `isTip` where no newer entry had read it. */
export function Part({ row, columns, isTip }: { readonly row: Row; readonly columns: number; readonly isTip: boolean }) {
    const { column, passing, joining, goesOn } = row;
    const own = x(column);
    return (
        <svg class="graph" width={graphWidth(columns)} height={ROW_HEIGHT} aria-hidden="true">
            {passing.map((line) => (
                <path key={line} class={kind(line)} d={`M${x(line)} 0V${ROW_HEIGHT}`} />
            ))}
            {joining.map((line) => (
                <path key={line} class={kind(line)} d={`M${x(line)} 0C${x(line)} ${MIDDLE} ${own} 0 ${own} ${MIDDLE}`} />
            ))}
            {!isTip && <path class={kind(column)} d={`M${own} 0V${MIDDLE}`} />}
            {goesOn && <path class={kind(column)} d={`M${own} ${MIDDLE}V${ROW_HEIGHT}`} />}
            {row.survives ? (
                <circle class="entry kept" cx={own} cy={MIDDLE} r="4.5" />
            ) : (
                <path class="entry lost" d={`M${own - 4} ${MIDDLE - 4}l8 8m0-8l-8 8`} />
            )}
        </svg>
    );
}

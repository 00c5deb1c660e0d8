// The balance as it was written beside what it should have been, version by version.
import { useMemo } from 'preact/hooks';

import { Chart } from '../../chart';
import { text } from './texts';
import type { Tree } from './tree';

export function Balances({ tree }: { readonly tree: Tree }) {
    const { actual, shouldHave } = text.value;
    const options = useMemo(() => {
        const rows = tree.rows.toReversed();
        // A picture: what is said of money is said in decimals elsewhere.
        const points = (of: (row: (typeof rows)[number]) => bigint): [number, number][] =>
            rows.map((row) => [row.entry.version, Number(of(row)) / 100]);
        const line = { type: 'line', step: 'end', showSymbol: false, sampling: 'minmax' } as const;
        return {
            xAxis: { type: 'value', min: 'dataMin', max: 'dataMax', minInterval: 1, axisLabel: { formatter: 'v{value}' } },
            yAxis: { type: 'value', scale: true },
            series: [
                { ...line, name: actual, data: points((row) => row.entry.after) },
                { ...line, name: shouldHave, lineStyle: { type: 'dashed' }, data: points((row) => row.expected) },
            ],
        };
    }, [tree, actual, shouldHave]);
    return <Chart options={options} label={text.value.balances} />;
}

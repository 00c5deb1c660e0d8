// The figures of one moment that one looks at first.
import type { ComponentChildren } from 'preact';

import { decimal, minor, signed } from '../../money';
import { words } from '../../words';
import { inMilliseconds, NONE, rough } from './format';
import type { Moment } from './ring';

const text = words({
    en: {
        qps: 'Changes/s',
        succeeded: 'acknowledged/s',
        refused: 'refused/s',
        failed: 'failed/s',
        p50: 'p50',
        p99: 'p99',
        inFlight: 'in flight',
        pool: 'connections in use',
        poolRest: (open: number, waiting: number) => `${open} open, ${waiting} waiting`,
        loss: 'lost in all accounts',
        lossOff: 'not compared here',
        lossRest: (accounts: bigint, rounds: bigint) => `accounts off: ${accounts}; rounds: ${rounds}`,
        balance: (id: bigint) => `balance of ${id}`,
        asExpected: 'as its journal says',
        expected: (amount: string, off: string) => `expected ${amount}: ${off}`,
        notCounted: 'this server counts what is acknowledged only',
    },
    zh: {
        qps: '变更/秒',
        succeeded: '已确认/秒',
        refused: '被拒绝/秒',
        failed: '失败/秒',
        p50: 'p50',
        p99: 'p99',
        inFlight: '进行中',
        pool: '使用中的连接',
        poolRest: (open: number, waiting: number) => `已打开 ${open}，等待 ${waiting}`,
        loss: '全部账户的损失',
        lossOff: '此服务器不做对账',
        lossRest: (accounts: bigint, rounds: bigint) => `不符账户：${accounts}；已对账 ${rounds} 轮`,
        balance: (id: bigint) => `账户 ${id} 的余额`,
        asExpected: '与流水一致',
        expected: (amount: string, off: string) => `应为 ${amount}：${off}`,
        notCounted: '此服务器只统计已确认的变更',
    },
});

function Tile({ name, label, value, tone, children }: {
    readonly name: string;
    readonly label: string;
    readonly value: string;
    readonly tone?: 'lost' | 'kept' | undefined;
    readonly children?: ComponentChildren;
}) {
    return (
        <div class="monitor-tile">
            <span>{label}</span>
            <strong class={tone} data-test={`monitor-${name}`}>{value}</strong>
            <small>{children}</small>
        </div>
    );
}

export function Tiles({ moment }: { readonly moment: Moment }) {
    const said = text.value;
    const { rates, status, account } = moment;
    const { pool, reconciliation: found } = status;
    const all = rates === null ? null : rates.succeeded + (rates.refused ?? 0) + (rates.failed ?? 0);
    const hasLoss = found !== undefined && minor(found.loss) !== 0n;
    return (
        <div class="monitor-tiles">
            <Tile name="qps" label={said.qps} value={rough(all)}>
                {status.changes === undefined ? said.notCounted : null}
            </Tile>
            <Tile name="succeeded" label={said.succeeded} value={rough(rates?.succeeded)} />
            <Tile name="refused" label={said.refused} value={rough(rates?.refused)} />
            <Tile name="failed" label={said.failed} value={rough(rates?.failed)} />
            <Tile name="p50" label={said.p50} value={inMilliseconds(rates?.p50)} />
            <Tile name="p99" label={said.p99} value={inMilliseconds(rates?.p99)} />
            <Tile name="in-flight" label={said.inFlight} value={status.inFlight.toString()} />
            <Tile name="pool" label={said.pool} value={pool === undefined ? NONE : `${pool.inUse} / ${pool.max}`}>
                {pool === undefined ? null : said.poolRest(pool.open, pool.waiting)}
            </Tile>
            <Tile name="loss" label={said.loss} value={found?.loss ?? NONE} tone={hasLoss ? 'lost' : undefined}>
                {found === undefined ? said.lossOff : said.lossRest(found.accounts, found.rounds)}
            </Tile>
            {account === null ? null : (
                <Tile
                    name="balance"
                    label={said.balance(account.userId)}
                    value={decimal(account.actual)}
                    tone={account.actual === account.expected ? 'kept' : 'lost'}
                >
                    {account.actual === account.expected
                        ? said.asExpected
                        : said.expected(decimal(account.expected), signed(account.actual - account.expected))}
                </Tile>
            )}
        </div>
    );
}

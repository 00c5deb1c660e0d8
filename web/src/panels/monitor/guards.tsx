// What keeps the server from taking on too much, and accounts from each other: breakers, limits, locks and leases.
import {
    BreakerPosition,
    type BreakerStatus,
    type Lease,
    type LimitStatus,
} from '../../generated/zbl/v1/lab_service_pb';
import { words } from '../../words';
import { NONE, span } from './format';
import { Facts, Table } from './pieces';
import { LEASES_MAX, type Moment } from './ring';

const text = words({
    en: {
        breakers: 'Circuit breakers',
        breakerColumns: ['before', 'position', 'for it', 'against it', 'tries again in', 'turned away'],
        positions: {
            closed: 'closed: everything passes',
            half: 'half open: a few probes',
            open: 'OPEN: nothing passes',
        },
        limits: 'Limits',
        calls: 'calls under way',
        rate: 'calls a second',
        accountRate: 'changes a second of one account',
        tokens: (left: bigint, burst: bigint) => `${left} of ${burst} tokens left`,
        any: 'any number',
        refusedForRoom: 'refused: too many at a time',
        refusedByRate: 'refused: too many a second',
        refusedByAccountRate: 'refused: too many of one account',
        leases: 'Leases',
        leaseColumns: ['lock', 'account', 'holder', 'ends in', 'waiting'],
        noLeases: 'Nobody holds a lock in Redis, or waits for one.',
        leasesLeftOut: (count: number) => `and ${count} more, not kept here`,
        noRedis: 'This server has no locks in Redis (--redis-url).',
        locks: 'Locks in Redis since the start',
        lockColumns: ['lock', 'taken', 'busy', 'no answer', 'lost while held', 'waited for', 'held'],
    },
    zh: {
        breakers: '熔断器',
        breakerColumns: ['保护对象', '状态', '成功', '失败', '多久后重试', '已拒绝'],
        positions: { closed: '关闭：全部放行', half: '半开：少量试探', open: '打开：全部拦截' },
        limits: '限流',
        calls: '进行中的调用',
        rate: '每秒调用数',
        accountRate: '单账户每秒变更数',
        tokens: (left: bigint, burst: bigint) => `令牌剩余 ${left} / ${burst}`,
        any: '不限',
        refusedForRoom: '拒绝：同时进行过多',
        refusedByRate: '拒绝：每秒过多',
        refusedByAccountRate: '拒绝：单账户过多',
        leases: '租约',
        leaseColumns: ['锁', '账户', '持有者', '剩余时间', '等待者'],
        noLeases: '当前没有人持有或等待 Redis 锁。',
        leasesLeftOut: (count: number) => `另有 ${count} 个未保留`,
        noRedis: '此服务器未使用 Redis 锁（--redis-url）。',
        locks: 'Redis 锁累计',
        lockColumns: ['锁', '获取', '被占用', '无应答', '持有中丢失', '累计等待', '累计持有'],
    },
});

export function Guards({ moment }: { readonly moment: Moment }) {
    const { breakers, limits } = moment.status;
    return (
        <>
            <Table
                name="breakers"
                title={text.value.breakers}
                columns={text.value.breakerColumns}
                texts={2}
                rows={breakers.map(breakerRow)}
            />
            {limits === undefined ? null : <Facts name="limits" title={text.value.limits} rows={limitRows(limits)} />}
            <Leases moment={moment} />
        </>
    );
}

function Leases({ moment: { status, leases } }: { readonly moment: Moment }) {
    const said = text.value;
    if (status.locks.length === 0) {
        return <p class="hint" data-test="monitor-no-redis">{said.noRedis}</p>;
    }
    return (
        <>
            <Table
                name="leases"
                title={said.leases}
                columns={said.leaseColumns}
                texts={3}
                rows={status.leases.map(leaseRow)}
                empty={said.noLeases}
                more={leases > LEASES_MAX ? said.leasesLeftOut(leases - LEASES_MAX) : undefined}
            />
            <Table
                name="locks"
                title={said.locks}
                columns={said.lockColumns}
                texts={1}
                rows={status.locks.map(({ lock, acquired, busy, down, lost, waited, held }) => [
                    lock,
                    ...[acquired, busy, down, lost].map(String),
                    span(waited),
                    span(held),
                ])}
            />
        </>
    );
}

function leaseRow({ lock, key, holder, ttl, waiters }: Lease): string[] {
    return [lock, key, holder || NONE, span(ttl), waiters.toString()];
}

function breakerRow({ server, position, succeeded, failed, retryAfter, refused }: BreakerStatus): string[] {
    return [server, positionOf(position), `${succeeded}`, `${failed}`, span(retryAfter), `${refused}`];
}

/** A breaker's position, by a sign and in words. */
function positionOf(position: BreakerPosition): string {
    const { positions } = text.value;
    if (position === BreakerPosition.CLOSED) {
        return `● ${positions.closed}`;
    }
    return position === BreakerPosition.OPEN ? `✕ ${positions.open}` : `◐ ${positions.half}`;
}

function limitRows(limits: LimitStatus): [string, string][] {
    const said = text.value;
    const rate = limits.rate === 0n ? said.any : `${limits.rate}; ${said.tokens(limits.tokens, limits.burst)}`;
    return [
        [said.calls, `${limits.calls} / ${limits.callsMax}`],
        [said.rate, rate],
        [said.accountRate, limits.accountRate === 0n ? said.any : limits.accountRate.toString()],
        [said.refusedForRoom, limits.refusedForRoom.toString()],
        [said.refusedByRate, limits.refusedByRate.toString()],
        [said.refusedByAccountRate, limits.refusedByAccountRate.toString()],
    ];
}

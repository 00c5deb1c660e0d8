// The service, as the contract has it: gRPC-Web on the port that the page came from. Owns the token and what errors mean;
// refuses to know a panel.
import { Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';
import { signal } from '@preact/signals';

import { ErrorInfoSchema } from './generated/google/rpc/error_details_pb';
import { AccountService } from './generated/zbl/v1/account_service_pb';
import { LabService } from './generated/zbl/v1/lab_service_pb';

/** The token that calls show; "" for none. Kept for as long as the tab lives, and nowhere else. */
export const token = signal('');

const showToken: Interceptor = (next) => (request) => {
    if (token.value !== '') {
        request.header.set('authorization', `Bearer ${token.value}`);
    }
    return next(request);
};

const transport = createGrpcWebTransport({ baseUrl: document.location.origin, interceptors: [showToken] });

/** Accounts, their journals and the timeline. */
export const accounts = createClient(AccountService, transport);

/** What the lab may do: attacks, schedules, status. */
export const lab = createClient(LabService, transport);

/** An error, as the page tells it. */
export interface Failure {
    /** Why, in the words of the error table; "" where no server of ours said so. */
    readonly reason: string;
    /** The same for people. */
    readonly message: string;
    /** Whether nobody answered, so that it may be tried again later. */
    readonly away: boolean;
    /** The request's field that it is about, as the contract names it; "" for none. */
    readonly field?: string;
}

/** What an error means. */
export function failure(error: unknown): Failure {
    const known = ConnectError.from(error);
    const info = known.findDetails(ErrorInfoSchema)[0];
    const reason = info?.reason ?? '';
    // Without our reason it is the network's: the browser says no more than that it failed.
    const away = reason === '' && [Code.Unavailable, Code.Unknown, Code.Internal, Code.Aborted].includes(known.code);
    const field = info?.metadata.field ?? '';
    return { reason, message: known.rawMessage, away: away || reason === 'SHUTTING_DOWN', field };
}

/** Whether an error is that the caller itself gave up. */
export function isCancelled(error: unknown): boolean {
    return ConnectError.from(error).code === Code.Canceled;
}

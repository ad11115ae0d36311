"""What may be wrong with a ledger: how to damage it, and what then has to be found."""

from farebox.postgres.verify import FaultCode

IN = "where pool_id = (select pool_id from pool where key = '{}')"
PLAIN, OVERAGE, SHARED = IN.format("plain"), IN.format("overage"), IN.format("shared")
RECURRING, TOPPED_UP = IN.format("recurring"), IN.format("topped-up")

# What is done to the ledger, and the findings that must be among those told: pool, code, place.
DAMAGE: dict[str, tuple[str, list[tuple[str, FaultCode, str]]]] = {
    "a transfer is gone": (
        f"delete from transfer {PLAIN} and sequence = 7",
        [("plain", FaultCode.SEQUENCE_BROKEN, "transfers")],
    ),
    "the last transfer is gone": (
        "delete from transfer t using pool p where p.key = 'plain' and t.pool_id = p.pool_id"
        " and t.sequence = p.sequence",
        [("plain", FaultCode.SEQUENCE_BROKEN, "transfers")],
    ),
    "all transfers are gone": (
        f"delete from transfer {PLAIN}",
        [
            ("plain", FaultCode.SEQUENCE_BROKEN, "transfers"),
            ("plain", FaultCode.BALANCE_WRONG, "account used"),
        ],
    ),
    "a pool forgot its last transfer": (
        "update pool set sequence = sequence - 1 where key = 'plain'",
        [("plain", FaultCode.SEQUENCE_BROKEN, "transfers")],
    ),
    "a transfer is earlier than the one before": (
        f"update transfer set time = time - interval '1 day' {PLAIN} and sequence = 7",
        [("plain", FaultCode.TIME_WENT_BACK, "transfer 7")],
    ),
    "a transfer is of another operation": (
        f"update transfer set operation = 1 {PLAIN} and sequence = 5",
        [("plain", FaultCode.OPERATION_BROKEN, "transfer 5")],
    ),
    "a key stands in the middle of an operation": (
        f"update transfer set key = 'stray' {SHARED} and sequence <> operation"
        " and sequence = (select max(sequence) from transfer t where sequence <> operation"
        "  and t.pool_id = transfer.pool_id)",
        [("shared", FaultCode.OPERATION_BROKEN, "transfer ")],
    ),
    "a key stands twice": (
        "drop index transfer_pool_id_key_idx;"
        f"update transfer set key = 'again' {PLAIN} and sequence = operation and sequence < 5",
        [("plain", FaultCode.KEY_TWICE, "key again")],
    ),
    "an account grew": (
        "update pool set used = used + 1 where key = 'overage'",
        [
            ("overage", FaultCode.POOL_NOT_ZERO, "all accounts"),
            ("overage", FaultCode.BALANCE_WRONG, "account used"),
        ],
    ),
    "units went from one account to another": (
        "update pool set used = used - 1, expired = expired + 1 where key = 'plain'",
        [
            ("plain", FaultCode.BALANCE_WRONG, "account used"),
            ("plain", FaultCode.BALANCE_WRONG, "account expired"),
        ],
    ),
    "an amount was changed": (
        f"update transfer set amount = amount + 1 {PLAIN} and reason = 'drawn' and sequence < 30",
        [
            ("plain", FaultCode.BALANCE_WRONG, "account used"),
            ("plain", FaultCode.CHAIN_BROKEN, "account used"),
            ("plain", FaultCode.CHAIN_BROKEN, "available_after"),
            ("plain", FaultCode.GRANT_WRONG, "grant "),
        ],
    ),
    "a balance before a transfer's end is another": (
        f"update transfer set target_after = target_after + 1 {PLAIN} and reason = 'drawn'",
        [("plain", FaultCode.CHAIN_BROKEN, "account used")],
    ),
    "a balance of the source is another": (
        f"update transfer set source_after = source_after - 1 {PLAIN} and sequence = 1",
        [("plain", FaultCode.CHAIN_BROKEN, "transfer 1, account source")],
    ),
    "the balance of a grant is another": (
        f"update transfer set target_after = target_after + 1 {PLAIN} and sequence = 1",
        [("plain", FaultCode.CHAIN_BROKEN, "transfer 1, grant 1")],
    ),
    "what was available is another": (
        f"update transfer set available_after = 1 {PLAIN} and sequence = 1",
        [("plain", FaultCode.CHAIN_BROKEN, "transfer 1, available_after")],
    ),
    "units came from another account": (
        f"update transfer set source = 'overdraft' {PLAIN} and sequence = 1",
        [
            ("plain", FaultCode.BALANCE_WRONG, "account overdraft"),
            ("plain", FaultCode.BALANCE_WRONG, "account source"),
            ("plain", FaultCode.CHAIN_BROKEN, ", account source"),
        ],
    ),
    "units came from another grant": (
        f"update transfer set grant_number = 1 {PLAIN} and reason = 'moved_out'"
        " and grant_number <> 1",
        [("plain", FaultCode.GRANT_WRONG, "grant 1")],
    ),
    "units came from no grant": (
        f"update transfer set grant_number = null {SHARED} and sequence = 2",
        [("shared", FaultCode.GRANT_WRONG, "no grant")],
    ),
    "a grant has more than it has": (
        f"update pool_grant set available = available + 1 {PLAIN} and status = 'active'",
        [("plain", FaultCode.GRANT_WRONG, "grant ")],
    ),
    "a grant is held that is not": (
        f"update pool_grant set held = held + 1 {SHARED} and number = 1",
        [("shared", FaultCode.GRANT_WRONG, "grant 1")],
    ),
    "a grant was of another amount": (
        f"update pool_grant set amount = amount + 1 {PLAIN} and number = 1",
        [("plain", FaultCode.GRANT_WRONG, "grant 1")],
    ),
    "a grant is there that was never issued": (
        "insert into pool_grant (organization_id, pool_id, number, status, amount,"
        " available, held, basis, priority, issued_at, effective_at, on_invoice, metadata)"
        " select organization_id, pool_id, 999, 'active', 5, 5, 0, basis, 0, issued_at,"
        f" effective_at, false, '{{}}' from pool_grant {PLAIN} and number = 1",
        [("plain", FaultCode.GRANT_WRONG, "grant 999")],
    ),
    "a grant is gone": (
        f"delete from pool_grant {SHARED}",
        [("shared", FaultCode.GRANT_WRONG, "grant 1")],
    ),
    "a grant that waits is said to be active": (
        f"update pool_grant set status = 'active' {TOPPED_UP} and status = 'pending'",
        [("topped-up", FaultCode.GRANT_WRONG, "grant ")],
    ),
    "a grant once gave more than it had": (
        f"update transfer set source_after = -1 {PLAIN} and reason = 'drawn'",
        [("plain", FaultCode.GRANT_BELOW_ZERO, "transfer ")],
    ),
    "a grant is below zero": (
        "alter table pool_grant drop constraint pool_grant_check;"
        f"update pool_grant set available = -1 {SHARED} and number = 1",
        [("shared", FaultCode.GRANT_WRONG, "grant 1")],
    ),
    "a closed grant has units": (
        f"update pool_grant set status = 'closed' {SHARED} and available > 0",
        [("shared", FaultCode.GRANT_NOT_CLOSED, "grant 1")],
    ),
    "a hold holds more than was held": (
        f"update hold set amount = amount + 1 {OVERAGE} and status = 'open'",
        [("overage", FaultCode.HOLD_WRONG, "hold ")],
    ),
    "a slice of a hold is larger": (
        "update hold set amount = amount + 1, slices = jsonb_set(slices::jsonb, '{0,1}', to_jsonb("
        f"((slices->0->>1)::numeric + 1)::text))::json {OVERAGE} and status = 'open'",
        [("overage", FaultCode.HOLD_WRONG, ", account ")],
    ),
    "a slice of a hold has another price": (
        f"update hold set slices = jsonb_set(slices::jsonb, '{{0,3}}', '\"9\"')::json {OVERAGE}"
        " and status = 'open'",
        [("overage", FaultCode.HOLD_WRONG, ", account ")],
    ),
    "a slice of a hold came from elsewhere": (
        "update hold set slices = replace(slices::text, 'overdraft', 'overage')::json"
        f" {IN.format('overdraft')} and status = 'open'",
        [
            ("overdraft", FaultCode.HOLD_WRONG, "account overdraft"),
            ("overdraft", FaultCode.HOLD_WRONG, "account overage"),
        ],
    ),
    "a hold ended and still holds": (
        f"update hold set status = 'released' {OVERAGE} and status = 'open'",
        [("overage", FaultCode.HOLD_WRONG, "hold ")],
    ),
    "a hold that ended is open": (
        f"update hold set status = 'open' {OVERAGE} and status = 'settled'",
        [("overage", FaultCode.HOLD_WRONG, "hold ")],
    ),
    "an open hold is gone": (
        f"delete from hold {OVERAGE} and status = 'open'",
        [("overage", FaultCode.HOLD_WRONG, ", account ")],
    ),
    "a hold that ended is gone": (
        f"delete from hold {OVERAGE} and status = 'released'",
        [("overage", FaultCode.HOLD_WRONG, "hold ")],
    ),
    **{
        f"the counter {name} is another": (
            "update pool set counters = jsonb_set(counters::jsonb, '{"
            f"{name}}}', '{value}')::json where key = '{pool}'",
            [(pool, FaultCode.COUNTER_WRONG, f"counter {name}")],
        )
        for pool, name, value in (
            ("plain", "used", '"1.5"'),
            ("overage", "overage", '"7"'),
            ("overage", "burst", '"7"'),
            ("overage", "spend", '"0.87"'),
            ("topped-up", "top_ups", "5"),
        )
    },
    "a share used more": (
        f"update allotment set used = used + 1 {SHARED} and key = 'intern'",
        [("shared", FaultCode.ALLOTMENT_WRONG, "allotment intern")],
    ),
    "a share went further beyond": (
        f"update allotment set beyond = beyond + 1 {SHARED} and key = 'team'",
        [("shared", FaultCode.ALLOTMENT_WRONG, "allotment team")],
    ),
    "a use counts for another share": (
        f"update transfer set allotment = 'rest' {SHARED} and allotment = 'intern'"
        " and reason = 'drawn'",
        [
            ("shared", FaultCode.ALLOTMENT_WRONG, "allotment intern"),
            ("shared", FaultCode.ALLOTMENT_WRONG, "allotment rest"),
        ],
    ),
    "a renewal was forgotten": (
        f"update pool_recurrence set definition = jsonb_set(definition::jsonb, '{{index}}', '1')"
        f"::json {RECURRING} and key = 'monthly'",
        [
            ("recurring", FaultCode.RECURRENCE_WRONG, "recurring grant monthly, grants"),
        ],
    ),
    "nobody knows who pays for an entry": (
        "update pool_subscription set first_sequence = 2 from pool"
        " where pool.pool_id = pool_subscription.pool_id and key = 'plain'",
        [("plain", FaultCode.SUBSCRIPTION_WRONG, "subscription none")],
    ),
    "a hold has its price in another currency": (
        "insert into pool_subscription select organization_id, pool_id, 2, null, 'EUR', 1"
        " from pool where key = 'plain';"
        "insert into pool_subscription select organization_id, pool_id, 3, null, 'USD', 1"
        " from pool where key = 'plain'",
        [("plain", FaultCode.SUBSCRIPTION_WRONG, "subscription none")],
    ),
    "a pool names a subscription that does not pay": (
        "update pool set subscription_key = 's' where key = 'idle'",
        [("idle", FaultCode.SUBSCRIPTION_WRONG, "subscription s")],
    ),
    "a renewal comes at another time": (
        "update pool_recurrence set next_at = next_at + interval '1 hour', definition = jsonb_set("
        "definition::jsonb, '{next_at}', to_jsonb(next_at + interval '1 hour'))::json"
        f" {RECURRING} and key = 'weekly'",
        [("recurring", FaultCode.RECURRENCE_WRONG, "recurring grant weekly, next grant at")],
    ),
    "a renewal is stored at two times": (
        f"update pool_recurrence set next_at = next_at + interval '1 hour' {RECURRING}"
        " and key = 'weekly'",
        [("recurring", FaultCode.RECURRENCE_WRONG, "recurring grant weekly, next_at")],
    ),
    "the running grant is another": (
        f"update pool_recurrence set definition = jsonb_set(definition::jsonb, '{{grant}}', '1')"
        f"::json {RECURRING} and key = 'weekly'",
        [("recurring", FaultCode.RECURRENCE_WRONG, "recurring grant weekly, running grant")],
    ),
    "units are lost between pools": (
        "update pool set transit = transit + 1, used = used - 1 where key = 'idle'",
        [
            ("unit token", FaultCode.TRANSIT_NOT_ZERO, "transit of all pools"),
            ("idle", FaultCode.BALANCE_WRONG, "account transit"),
        ],
    ),
}

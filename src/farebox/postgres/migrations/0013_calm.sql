-- As long as a pool has this much or more, and since the last look its units went nowhere but from
-- grants to use and holds and back, there is nothing to tell of it. Null: it is glanced at anyway.
-- calm_by: a digest of the rules, and of the way, by which that was worked out.
alter table pool_watch add column calm_above numeric, add column calm_by uuid;

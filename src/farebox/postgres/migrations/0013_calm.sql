-- As long as a pool has this much or more, and since the last look its units went nowhere but from
-- grants to use and holds and back, there is nothing to tell of it. Null: it is looked at anyway.
alter table pool_watch add column calm_above numeric;

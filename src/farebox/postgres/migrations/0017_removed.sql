-- What a share that was taken away has used in this period counts for those that it was part of, as
-- long as that is more than nothing. Those that were taken away before count nowhere.

update allotment set used = 0, beyond = 0, lent = 0 where removed;

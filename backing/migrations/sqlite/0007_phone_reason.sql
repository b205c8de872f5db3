-- What the phone network said of a Call's end.
ALTER TABLE calls ADD COLUMN phone_reason TEXT;

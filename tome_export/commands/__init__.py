"""The commands of `tome-export`, a file each: parse, call, print. Heavy imports wait until needed."""

package test_test

// rulesInShort are the rules of the contract, each in a few words: a reminder
// for people who read the page, not the rule.
var rulesInShort = map[int]string{
	1: "order of the steps; an error ends them", 2: "a failed build changes no tag", 3: "control files come from git objects and are plain files",
	4: "bytes, modes and links of the source; submodules, LFS pointers", 5: "names that are not safe", 6: "time stamps are the commit's",
	7: "nothing leads out of the rootfs; no tar or shell is needed",

	11: "where an image's scripts are", 12: "destination", 13: "user of assemble", 14: "user of assemble-runtime", 15: "artifact list of a runtime image",
	16: "labels that are only inherited", 17: "image:// with an absolute path", 18: "image:// with a relative path", 19: "file:// is refused",
	20: "http:// only if the operator allows it", 21: "values without a scheme", 22: "a bad value is not skipped", 23: "notices of old names",
	24: "relative and forbidden destinations", 25: "ONBUILD is refused", 26: "image names, platform, pull policy",

	31: "what is in src", 32: "what is in scripts", 33: "what is in artifacts", 34: "owner of what is delivered", 35: "scripts are 0755",
	36: "a missing destination is made", 37: "/tmp is 1777", 38: "src and artifacts are replaced, scripts merged", 39: "what assemble leaves stays",
	40: "mounts of a build", 41: "no mount reaches the layer",

	42: "each script is looked up alone", 43: "both scripts are known before anything runs", 44: "hooks are moved out of src", 45: "STI_SCRIPTS_PATH is set if missing",
	46: "hooks can call the image's scripts", 47: "the log names each script's place", 48: "started directly, past the ENTRYPOINT", 49: "scripts that cannot be started",
	50: "directory, input, terminal, umask, host name", 51: "nothing outlives the script", 52: "output byte for byte; exit code", 53: "scripts by http",
	56: "scaffold of a builder", 57: "usage of a builder",

	61: "layers of environment", 62: "limits of .s2i/environment", 63: "its lines", 64: "one pair of quotes", 65: "odd lines and names", 66: "reserved names",
	69: "examples of lines", 72: "facts of the build", 73: "facts are not kept", 74: "secrets are files on a tmpfs", 75: "proxies", 76: "masking", 77: "CA bundle",

	81: "lines of .s2iignore", 82: "patterns", 83: "lines work in order", 84: "matching is on the git tree", 85: "after hooks and environment", 87: "examples of patterns",

	91: "when a build is incremental", 92: "which save-artifacts", 93: "how it is started", 94: "its output is a tar", 95: "accepted entries", 96: "names of entries",
	97: "caps", 98: "a failure means a clean build", 99: "the previous image stays; the record tells",

	101: "the runtime image is checked first", 102: "scripts of the runtime image", 103: "list of artifacts", 104: "form of an item", 105: "where an artifact lands",
	106: "missing and double artifacts", 107: "modes and owners", 108: "hooks of the runtime image", 109: "assemble-runtime", 110: "output on the runtime image",
	111: "not with incremental = true",

	113: "Cmd", 114: "Entrypoint", 115: "the rest of the config is kept", 116: "one layer, one history entry", 118: "labels", 119: "annotations; odd characters",
	120: "image_metadata.json", 121: "labels it cannot override", 122: "size of all labels",

	131: "allowed_uids", 132: "examples of allowed_uids", 133: "names are the image's", 134: "assemble as 0, 1001 or any uid", 135: "network", 136: "limits",
	141: "one code for each failure", 142: "what is no failure", 151: "the suite makes its images", 152: "where s2i's own cases are",

	161: "where .daeploy is", 162: "faults with line and column", 163: "its keys", 164: "all have defaults", 165: "context_dir", 166: "which branch builds", 167: "which builder builds",
}

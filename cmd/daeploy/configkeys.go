package main

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
)

// configKey is one key of the configuration: what docs/configuration.md says of
// it. Its type and its default are those of the field that it is decoded into.
type configKey struct {
	name    string // with its table, "build.memory"; NAME stands for a name that is free
	absent  string // what it means that it is not set, where no default says it
	meaning string
	restart bool // a reload leaves it as it is
}

// configKeys are the keys of the file and no others, in the order people should
// meet them. A test holds them against the fields of config.
var configKeys = []configKey{
	{name: "state_dir", restart: true, meaning: "database, repositories, logs, host key; absolute"},
	{name: "socket", restart: true, meaning: "the local door; mode 0660, group `daeploy` if it exists"},
	{name: "ssh_addr", restart: true, meaning: "the SSH door; port 0 picks one, which the line `ready` shows"},
	{name: "containerd", restart: true, meaning: "containerd's socket"},
	{name: "namespace", restart: true, meaning: "containerd's namespace"},
	{
		name: "metrics_addr", restart: true, absent: "off",
		meaning: "`/metrics`, `/livez`, `/readyz` over HTTP, as in `127.0.0.1:9180`: [metrics](metrics.md). Nobody logs in there: keep it on loopback",
	},
	{
		name: "public_address", absent: "the host's name and the SSH port",
		meaning: "what pushers call this host, for hints; if it is set, also for the clone URL in labels and builds",
	},
	{
		name: "default_builder", absent: "their files choose, see [builders](builders.md#which-builder)",
		meaning: "builder of apps that name none",
	},
	{
		name:    "builder_order",
		meaning: "who builds where the files fit several: the first of these that fits. Names below `daeploy.local/builders/`, with tag",
	},
	{name: "pull_policy", meaning: "when a builder is pulled: `always`, `if-not-present`, `never`"},
	{name: "allow_builder_option", meaning: "whether `git push -o builder=IMAGE` is allowed"},
	{
		name:    "reuse_images",
		meaning: "whether a push whose files, builder, variables and settings equal those of an image that is kept is answered with that image. `git push -o clean` and `rebuild` build all the same",
	},
	{name: "max_builds", meaning: "builds at once, in all"},
	{name: "max_queued", meaning: "builds waiting, in all; more pushes are refused"},
	{name: "max_queued_per_app", meaning: "builds of one app waiting"},
	{
		name: "disk_reserve", absent: "5 % of the disk, at least 1 GiB",
		meaning: "what stays free on the disks of `state_dir` and of containerd: with less, pushes are refused, builds that waited fail instead of beginning, and builds that write are stopped",
	},
	{
		name: "secrets_dir", restart: true,
		meaning: "a directory on a tmpfs, where an app's secrets are for the moment in which a build's container is started; made if it is not there. If it is on a disk, or others can read it, builds of apps with secrets fail",
	},
	{name: "init", restart: true, meaning: "static program that is process 1 of every container, called as tini is"},
	{name: "ca_bundle", meaning: "PEM file that builds see at `/run/daeploy/ca.pem`, at most 4 MiB"},
	{name: "allowed_uids", absent: "any user", meaning: "numeric users that builds may run as, as in `\"1000-1999, 30000-\"`"},
	{
		name:    "user_ids",
		meaning: "ids of this host that the users and groups of containers are, as `\"FIRST:COUNT\"`, each container in a [user namespace](security.md#user-namespaces) where the host can do that; `\"off\"`: they are the host's",
	},
	{name: "scripts_urls", meaning: "URL prefixes from which builders' scripts may be fetched, as in `[\"https://scripts.example.org/s2i\"]`"},

	{name: "env.NAME", meaning: "a variable of every build"},

	{name: "proxy.http", meaning: "URL of a proxy for builds; `http`, `https`, `socks5`, `socks5h`"},
	{name: "proxy.https", meaning: "as `http`"},
	{name: "proxy.all", meaning: "as `http`"},
	{name: "proxy.no", meaning: "comma list of hosts that builds reach without a proxy"},

	{name: "mirrors.pip", meaning: "`PIP_INDEX_URL` of builds"},
	{name: "mirrors.npm", meaning: "`npm_config_registry` of builds"},
	{name: "mirrors.go", meaning: "`GOPROXY` of builds: URLs, `direct` and `off`, with commas or bars between"},

	{name: "build.memory", meaning: "of one build; no swap where the kernel accounts for swap"},
	{name: "build.max_memory", meaning: "how far `[build] memory` of a `.daeploy` may go"},
	{name: "build.cpus", meaning: "as in `1.5`"},
	{name: "build.max_cpus", meaning: "how far `cpus` of a `.daeploy` may go"},
	{name: "build.timeout", meaning: "from after the images are there to the end of the last script"},
	{name: "build.max_timeout", meaning: "how far `timeout` of a `.daeploy` may go"},
	{name: "build.silence", meaning: "a build that prints nothing for so long is stopped"},
	{name: "build.grace", meaning: "from SIGTERM to SIGKILL when a build is stopped"},
	{name: "build.pids", meaning: "processes"},
	{name: "build.disk", meaning: "growth of a build's files; also the largest single file. With a runtime image each of its two file systems may grow so far"},
	{name: "build.inodes", meaning: "number of files it may add"},
	{name: "build.log", meaning: "what it may print"},
	{name: "build.cache", meaning: "what an app's [package cache](builders.md#the-package-cache) may hold after a build; `\"0\"` keeps nothing"},
	{name: "build.cache_inodes", meaning: "number of files it may hold"},
	{name: "build.spare_files", meaning: "number of files that an app's source must have for it to be laid out once more after a build, when nothing is built: the next build then writes only what has changed; `0` for never. It takes the room of one source per app, until a week after its last build, or `gc`"},
	{name: "build.save_artifacts_timeout", meaning: "of `save-artifacts`, within `timeout`"},
	{name: "build.artifacts", meaning: "sum of the files that it may hand on"},
	{name: "build.artifact_entries", meaning: "number of files and directories that it may hand on"},

	{name: "network.mode", meaning: "network of builds: `bridge`, or `none` for the build's own loopback alone. `run` has the bridge in any case"},
	{name: "network.bridge", restart: true, meaning: "name of the bridge, and first part of our firewall chains' names; 1 to 15 of a-z, 0-9, hyphen"},
	{
		name: "network.subnet", restart: true,
		meaning: "IPv4, at least 8 addresses. The bridge keeps the one that it was made with: after a change, `ip link delete daeploy0` while nothing is built",
	},
	{name: "network.allow_private", meaning: "whether builds reach 10/8, 100.64/10, 172.16/12 and 192.168/16"},

	{name: "registry.insecure", meaning: "registries that are asked by plain HTTP, as `\"host:port\"`"},
	{name: "registry.trusted", meaning: "registries that may be at any address, this host's own included; `\"host\"` or `\"host:port\"`"},
	{name: "registry.credentials", meaning: "a file as docker's `config.json`, with `auths`"},
	{name: "registry.max_image", meaning: "largest builder image: as it is pulled, and again unpacked"},

	{name: "registry.hosts.NAME.user", meaning: "goes with `password_file`"},
	{name: "registry.hosts.NAME.password_file", meaning: "file with one line; goes with `user`"},
	{name: "registry.hosts.NAME.ca", absent: "those of the system", meaning: "PEM file of authorities; no others are trusted for this host"},

	{name: "registry.push.repository", absent: "nowhere", meaning: "with the registry's host, and with `{app}` in it, as in `\"registry.example.org/team/{app}\"`"},
	{
		name:    "registry.push.tags",
		meaning: "up to 16. `{number}` is the build's, `{commit}` and `{short_commit}` have 40 and 7 digits; every name without a number moves to the app's newest build",
	},
	{name: "registry.push.compression", meaning: "`gzip` or `zstd`, of layers that are not compressed"},
	{name: "registry.push.sbom", meaning: "a [bill of materials](registry.md#what-lies-beside-it) beside the image, as CycloneDX"},
	{name: "registry.push.provenance", meaning: "how the image came to be, beside it, as SLSA; not signed"},

	{
		name: "ssh.trusted_user_ca_keys", absent: "nobody by a certificate",
		meaning: "file of the CAs' public keys, one a line, as sshd's TrustedUserCAKeys; absolute",
	},
	{name: "ssh.revoked_keys", absent: "nothing is revoked", meaning: "file of what is not accepted although a CA has signed it; absolute"},
	{
		name: "ssh.max_unproven", restart: true,
		meaning: "connections that have not had a session; from a tenth of it on, one of three is dropped, and more as it fills. Who has had a tenth of `login_timeout` gives way to who comes",
	},
	{name: "ssh.max_per_source", restart: true, meaning: "connections of one IPv4 address, or IPv6 network of /64"},
	{name: "ssh.max_sessions", restart: true, meaning: "sessions at once on one connection"},
	{name: "ssh.login_timeout", restart: true, meaning: "from the beginning of a connection to its first session"},
	{name: "ssh.idle_timeout", restart: true, meaning: "how long a connection may have no session"},
	{name: "ssh.keepalive", restart: true, meaning: "between questions whether the client is there"},
	{name: "ssh.keepalive_misses", restart: true, meaning: "as many unanswered ones close the connection"},
	{name: "ssh.stall_timeout", restart: true, meaning: "how long a client may take no byte"},

	{name: "ssh.penalties.failed_login", meaning: "for a connection that tried to log in, and did not get in; `0s` is none, as below"},
	{name: "ssh.penalties.no_attempt", meaning: "for one that has gone, or whose time was over, without having tried"},
	{name: "ssh.penalties.broken_protocol", meaning: "for one that sends what is not SSH"},
	{name: "ssh.penalties.min", meaning: "nothing is refused before so much has added up"},
	{name: "ssh.penalties.max", meaning: "more does not add up; at least `min`"},
	{name: "ssh.penalties.exempt", meaning: "addresses and networks without penalties, as in `[\"192.0.2.7\", \"10.0.0.0/8\", \"2001:db8::/48\"]`"},

	{name: "receive.allow_delete", meaning: "whether a push may delete the deploy branch. Its images and history stay; the next push to it builds"},
	{name: "receive.allow_force", meaning: "whether a push may take commits off the deploy branch, as `git push --force` does to go back"},
	{name: "receive.at_once", restart: true, meaning: "pushes that come in at once, and fetches; others wait"},
	{name: "receive.at_once_per_key", restart: true, meaning: "of them, of one key"},
	{name: "receive.refs_per_push", restart: true, meaning: "branches and tags in one push"},
	{name: "receive.refs", restart: true, meaning: "branches and tags of an app"},
	{name: "receive.pack", restart: true, meaning: "what one push brings, as it is sent"},
	{name: "receive.objects", restart: true, meaning: "number of objects in it"},
	{name: "receive.object", restart: true, meaning: "the largest object, expanded; also of submodules"},
	{name: "receive.repository", restart: true, meaning: "an app's repository; above it pushes are refused until maintenance has made room"},
	{name: "receive.memory", restart: true, meaning: "memory of each git that works for a client, at least `64MiB`"},
	{name: "receive.cpu", restart: true, meaning: "its CPU time, in whole seconds"},
	{name: "receive.silence", restart: true, meaning: "how long no byte may come, until git has the push"},
	{name: "receive.timeout", restart: true, meaning: "how long a push may take until git has it"},

	{
		name:    "submodules.hosts",
		meaning: "from where submodules are fetched, `\"host\"` or `\"host:port\"`; others stay empty directories, with a warning",
	},
	{name: "submodules.ssh_key", absent: "nothing by ssh", meaning: "private key without a passphrase"},
	{name: "submodules.known_hosts", meaning: "the hosts' keys, as `ssh-keyscan` writes them; goes with `ssh_key`"},
	{name: "submodules.ca", absent: "those of the system", meaning: "PEM file of the authorities that sign for these hosts"},
	{name: "submodules.credentials", meaning: "for https: lines of `https://user:password@host`"},

	{
		name:    "webhooks.url",
		meaning: "where to; must be set. `https`; `http` only with `trusted`. User and password in it are sent as basic authorization",
	},
	{
		name:    "webhooks.secret_file",
		meaning: "what signs; must be set: a file of root's with mode 0600, at least 16 bytes; a last line feed does not count. Read anew each time",
	},
	{name: "webhooks.events", absent: "the five ends of a build", meaning: "kinds of events, as `daeploy help events` lists them"},
	{name: "webhooks.apps", absent: "all, and what concerns no app", meaning: "apps whose events are sent"},
	{name: "webhooks.timeout", absent: "10s", meaning: "of one attempt, at most `1m`"},
	{name: "webhooks.ca", absent: "those of the system", meaning: "PEM file of the authorities that sign for the receiver. Read anew each time"},
	{name: "webhooks.trusted", meaning: "the receiver may be at any address, this host's own included"},

	{name: "keep.builds", meaning: "builds with their records, logs and commits"},
	{name: "keep.age", absent: "no limit", meaning: "how long, after the build's end"},
	{name: "keep.logs", meaning: "of their logs, in all"},
	{name: "keep.images", meaning: "images of those builds"},
	{name: "keep.image_age", absent: "no limit", meaning: "how long they stay, after the build's end"},
	{name: "keep.image_bytes", absent: "no limit", meaning: "what the builds have added to their images, in all"},
	{name: "keep.cache_age", meaning: "how long a package cache stays that no build has used; `[build] cache` is its size"},

	{
		name: "backup.directory", absent: "never",
		meaning: "where to, as in `\"/var/backups/daeploy\"`; absolute, not in `state_dir`, and there already: it is never made",
	},
	{name: "backup.at", meaning: "time of the day, on the host's clock"},
	{name: "backup.every", meaning: "from `at` on; a whole part of a day, of an hour at least, as in `6h`"},
	{name: "backup.keep", meaning: "how many of these stay"},
}

// configValue is a key of the file with its value in a configuration. A table
// whose names are free, and an array of tables, is one value.
type configValue struct {
	key   string
	value reflect.Value
}

// configValues lists what the decoder takes into a struct, in the order of its
// fields.
func configValues(prefix string, from reflect.Value) (all []configValue) {
	for i := range from.NumField() {
		field := from.Type().Field(i)
		key, tagged := field.Tag.Lookup("toml")
		switch key = prefix + key; {
		case !tagged:
		case isTable(field.Type):
			all = append(all, configValues(key+".", from.Field(i))...)
		default:
			all = append(all, configValue{key, from.Field(i)})
		}
	}
	return all
}

// wantsRestart tells whether a reload leaves a key as it is.
func wantsRestart(key string) bool {
	return slices.ContainsFunc(configKeys, func(k configKey) bool { return k.name == key && k.restart })
}

// keyOfFlag is the key that a flag of serve stands for.
func keyOfFlag(name string) string { return strings.ReplaceAll(name, "-", "_") }

// ofFlag is the value of the key that a flag of serve stands for.
func (c *config) ofFlag(name string) *string {
	for _, v := range configValues("", reflect.ValueOf(c).Elem()) {
		if v.key == keyOfFlag(name) {
			return v.value.Addr().Interface().(*string)
		}
	}
	panic("there is no key of the flag " + name)
}

// isTable tells whether a field is decoded key by key.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

package registry

// ParseDocker gives the user of each host.
func ParseDocker(text []byte) (map[string]string, error) {
	logins, err := parseDocker(text)
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for host, l := range logins {
		users[host] = l.user
	}
	return users, nil
}

job "hcl1-one-line" {
  group "web" {
    task "nginx" {
      driver = "docker"
      config { image = "nginx"  args = ["-v"] }
      resources { cpu = 100 memory = 64 }
    }
  }
}

job "config-labelled-blocks" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        logging "json" {
          level = "info"
        }
        two "a" "b" {
          x = 1
        }
      }
    }
  }
}

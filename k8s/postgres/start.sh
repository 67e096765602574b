#!/bin/sh
# Makes the databases on an empty volume, then becomes the server. Killed halfway, it starts over.
set -eu
umask 077
volume=/var/lib/postgresql/data
data=$volume/15

if [ ! -e "$data" ]; then
    [ -n "${POSTGRES_PASSWORD:-}" ] || { echo "POSTGRES_PASSWORD is empty: set key password of Secret rcg-postgres" >&2; exit 2; }
    rm -rf "$data.part"
    initdb --pgdata="$data.part" --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=peer --auth-host=scram-sha-256 --data-checksums
    echo "host all all all scram-sha-256" >> "$data.part/pg_hba.conf"
    quoted=$(printf %s "$POSTGRES_PASSWORD" | sed "s/'/''/g")
    postgres --single -D "$data.part" postgres > /dev/null <<SQL
CREATE ROLE mlflow LOGIN PASSWORD '$quoted'
CREATE DATABASE mlflow OWNER mlflow
CREATE DATABASE mlflow_auth OWNER mlflow
SQL
    mv "$data.part" "$data"
fi
unset POSTGRES_PASSWORD
chmod 700 "$data"   # a volume's fsGroup may have opened it to the group, which the server refuses
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql -c shared_buffers=128MB \
    -c log_timezone=UTC -c timezone=UTC
